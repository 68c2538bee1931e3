"""JSON in fewer bytes: long strings are cut and marked, then lists and objects."""

from typing import Any, Final

import msgspec

from .objects import cut_text, mark_items, mark_keys

STRING_LIMITS: Final = tuple(1024 * n for n in (960, 480, 240, 60, 16, 4, 1))
"""Characters that are tried, one after the other."""

_encode: Final = msgspec.json.Encoder().encode


def cut_strings(tree: Any, max_bytes: int) -> bytes | None:
    """The JSON of a tree, its longest strings cut and marked; None if that is not enough."""
    for most in STRING_LIMITS:
        encoded = _encode(shorten(tree, most))
        if len(encoded) <= max_bytes:
            return encoded
    return None


def shorten(tree: Any, most: int, items: int | None = None) -> Any:
    """The same tree with strings of at most so many characters, and lists of so many items."""
    if type(tree) is str:
        return cut_text(tree, most)
    if type(tree) is list:
        return mark_items([shorten(item, most, items) for item in tree[:items]], len(tree))
    if type(tree) is dict:
        kept = list(tree.items())[:items]
        return mark_keys({key: shorten(value, most, items) for key, value in kept}, len(tree))
    return tree

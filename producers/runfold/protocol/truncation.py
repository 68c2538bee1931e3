"""Shorten JSON: cut and mark long strings, then lists and objects."""

import re
from typing import Any, Final

import msgspec

_MARK: Final = re.compile(r"…\[cut, (\d+) characters\]\Z")


def cut_text(text: str, most: int) -> str:
    """Return at most `most` characters, then a mark with the original length."""
    if len(text) <= most:
        return text
    marked = _MARK.search(text, max(0, len(text) - 40))
    length = int(marked[1]) if marked else len(text)
    return f"{text[:most]}…[cut, {length} characters]"


def mark_items(items: list[Any], length: int) -> list[Any]:
    """Append a mark with the original length to a list that was cut."""
    if len(items) < length:
        items.append(f"…[cut, {length} items]")
    return items


def mark_keys(items: dict[str, Any], length: int) -> dict[str, Any]:
    """Add a mark with the original length to a mapping that was cut."""
    if len(items) < length:
        items["…"] = f"[cut, {length} keys]"
    return items


STRING_LIMITS: Final = tuple(1024 * n for n in (960, 480, 240, 60, 16, 4, 1))
"""Limits in characters, to be tried in this order."""

_encode: Final = msgspec.json.Encoder().encode


def cut_strings(tree: Any, max_bytes: int) -> bytes | None:
    """Return the JSON of a tree with its longest strings cut; None if that is not enough."""
    for most in STRING_LIMITS:
        encoded = _encode(shorten(tree, most))
        if len(encoded) <= max_bytes:
            return encoded
    return None


def shorten(tree: Any, most: int, items: int | None = None) -> Any:
    """Return the tree with strings of at most `most` characters and containers of `items`."""
    if type(tree) is str:
        return cut_text(tree, most)
    if type(tree) is list:
        return mark_items([shorten(item, most, items) for item in tree[:items]], len(tree))
    if type(tree) is dict:
        kept = list(tree.items())[:items]
        return mark_keys({key: shorten(value, most, items) for key, value in kept}, len(tree))
    return tree

"""Secrets in events that came as JSON, masked where they stand.

The contract's own fields keep their names' meaning (`user`, `usage.input_tokens`, `error.message`);
what stands in payloads, tags and fields that the contract does not know is judged by its key, as
the SDK judges it. Bytes that need not change are not changed: numbers of any length stay as sent.
"""

import re
from collections.abc import Collection
from typing import Any, Final

import msgspec
from msgspec import Raw

from runfold.protocol.events import EVENT_CLASSES, Error, PlannedNode, Trigger, Usage

from .redaction import REDACTED, Redactor

Fields = dict[str, Raw]

_NONE: Final[frozenset[str]] = frozenset()
_CONTRACT_FIELDS: Final[dict[str, frozenset[str]]] = {
    name: _NONE for cls in EVENT_CLASSES for name in ("type", *cls.__struct_fields__)
} | {
    name: frozenset(cls.__struct_fields__)
    for name, cls in (
        ("trigger", Trigger),
        ("usage", Usage),
        ("error", Error),
        ("nodes", PlannedNode),
    )
}
"""The contract's fields, and the names that it gives to what is in them."""

_MASKED: Final = Raw(msgspec.json.encode(REDACTED))
_SAMPLES: Final[dict[bytes, Any]] = {
    b'"': "",
    b"t": True,
    b"f": False,
    b"n": None,
    b"{": {},
    b"[": [],
}
# Whole strings one after the other, possessively: the time it takes grows with the text alone.
_PAIRS: Final = re.compile(
    rb"""
    (?P<head>"(?P<key>(?:[^"\\]++|\\.)*+)"\s*+:\s*+)(?P<value>"(?:[^"\\]++|\\.)*+"?|[^\s,\]}"{[]++)
    | "(?:[^"\\]++|\\.)*+"?
    """,
    re.VERBOSE | re.DOTALL,
)
_CONTAINERS: Final = frozenset((dict, list))
_decode: Final = msgspec.json.Decoder().decode
_decode_object: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_array: Final = msgspec.json.Decoder(list[Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


def mask_body(body: bytes, redactor: Redactor) -> bytes:
    """The fields of an event, with its envelope or without; those bytes if nothing is to be masked.

    Raises what the parser raises when it is no JSON object.
    """
    tree = _decode(body)
    if (
        type(tree) is dict
        and _CONTRACT_FIELDS.keys() >= tree.keys()
        and _needs_no_mask_below(tree, redactor)
    ):
        return body
    fields = _decode_object(body)
    masked: Fields = {}
    for name, raw in fields.items():
        own = _CONTRACT_FIELDS.get(name)
        if own is None and redactor.masks(name, _sample(raw)):
            masked[name] = _MASKED
        elif (value := _mask(raw, redactor, own or _NONE)) is not raw:
            masked[name] = value
    return _encode(fields | masked) if masked else body


def mask_broken(text: bytes, redactor: Redactor) -> bytes:
    """What was sent as an event; if it is no JSON, whatever looks like `"key": value` in it."""

    def mask(pair: re.Match[bytes]) -> bytes:
        key, value = pair["key"], pair["value"]
        if key is None or not redactor.masks(key.decode(errors="replace"), _sample(Raw(value))):
            return pair[0]
        return pair["head"] + bytes(_MASKED)

    try:
        return mask_body(text, redactor)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _PAIRS.sub(mask, text)


def _needs_no_mask(tree: Any, redactor: Redactor) -> bool:
    """Whether no key in it is sensitive, as of nearly all: known keys are compared as sets."""
    if type(tree) is dict:
        if not redactor.unmasked_keys.issuperset(tree):
            for key, value in tree.items():
                if redactor.masks(key, value):
                    return False
        return _needs_no_mask_below(tree, redactor)
    for value in tree:
        if type(value) in _CONTAINERS and not _needs_no_mask(value, redactor):
            return False
    return True


def _needs_no_mask_below(tree: dict[str, Any], redactor: Redactor) -> bool:
    for value in tree.values():
        if type(value) in _CONTAINERS and not _needs_no_mask(value, redactor):
            return False
    return True


def _mask(raw: Raw, redactor: Redactor, own: Collection[str]) -> Raw:
    text = bytes(raw)
    if text[:1] == b"[":
        items = _decode_array(text)
        masked = [_mask(item, redactor, own) for item in items]
        is_same = all(new is old for new, old in zip(masked, items, strict=True))
        return raw if is_same else Raw(_encode(masked))
    if text[:1] != b"{":
        return raw
    changed: Fields = {}
    fields = _decode_object(text)
    for key, value in fields.items():
        if key not in own and redactor.masks(key, _sample(value)):
            changed[key] = _MASKED
        elif (new := _mask(value, redactor, _NONE)) is not value:
            changed[key] = new
    return Raw(_encode(fields | changed)) if changed else raw


def _sample(raw: Raw) -> Any:
    """A value of the same kind: all that the rule looks at beside the key."""
    return _SAMPLES.get(bytes(raw)[:1], 0)

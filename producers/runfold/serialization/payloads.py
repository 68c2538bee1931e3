"""Encode any Python object as bounded JSON, with secrets masked; no value makes this raise."""

from typing import Any, Final

import msgspec
from msgspec import Raw

from runfold.protocol.codec import replace_unstorable
from runfold.protocol.events import ABSENT, MAX_EVENT_BYTES
from runfold.protocol.truncation import STRING_LIMITS, cut_strings, shorten

from .normalize import normalize_text
from .objects import MAX_PAYLOAD_DEPTH, ObjectSerializer, not_recorded
from .redaction import Redactor

MAX_PAYLOAD_BYTES: Final = MAX_EVENT_BYTES - 16 * 1024
"""For one payload; the rest of an event is left for its other fields."""

_ITEM_LIMITS: Final = (10_000, 1_000, 100, 10)
_LARGE: Final = 2**1023
"""Within the range of a double."""
_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder()


def encode_payload(value: object, redactor: Redactor, max_bytes: int = MAX_PAYLOAD_BYTES) -> Raw:
    """Return the JSON of a payload; None is a payload that was not given."""
    if value is None:
        return ABSENT
    try:
        tree = ObjectSerializer(redactor).read(value)
        return Raw(_encode_bounded(tree, max_bytes))
    except Exception as error:  # foreign code may raise anything
        return Raw(_encoder.encode(not_recorded(value, error)))


def redact_raw(raw: Raw, redactor: Redactor) -> Raw:
    """Redact JSON that a caller encoded; return the same bytes if nothing has to change."""
    if not len(raw):
        return ABSENT
    text = bytes(raw)
    storable = replace_unstorable(text)
    try:
        tree = _decoder.decode(storable)
        if not redactor.has_callable and needs_no_change(tree, redactor):
            return raw if storable is text else Raw(storable)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Raw(_encoder.encode(f"[not recorded: not JSON: {normalize_text(error)}]"))
    return encode_payload(tree, redactor)


def shrink(raw: Raw, max_bytes: int) -> Raw:
    """Return the same payload in at most `max_bytes`, with marks where it was cut."""
    return raw if len(raw) <= max_bytes else Raw(_encode_bounded(_decoder.decode(raw), max_bytes))


def _encode_bounded(tree: Any, max_bytes: int) -> bytes:
    encoded = _encoder.encode(tree)
    if len(encoded) <= max_bytes:
        return encoded
    shorter = cut_strings(tree, max_bytes)
    if shorter is not None:
        return shorter
    for items in _ITEM_LIMITS:
        shorter = _encoder.encode(shorten(tree, STRING_LIMITS[-1], items))
        if len(shorter) <= max_bytes:
            return shorter
    return _encoder.encode(f"[cut, {len(encoded)} bytes of JSON]")


def needs_no_change(tree: Any, redactor: Redactor, depth: int = 0) -> bool:
    """Return whether nothing is to be masked, nested too deeply or too large a number."""
    if type(tree) is dict:
        for key, value in tree.items():
            if redactor.masks(key, value) or not needs_no_change(value, redactor, depth + 1):
                return False
    elif type(tree) is list:
        for item in tree:
            if not needs_no_change(item, redactor, depth + 1):
                return False
    elif type(tree) is int:
        return -_LARGE < tree < _LARGE
    return depth <= MAX_PAYLOAD_DEPTH

"""Check and mask events of senders other than the SDK, before they enter a stream or the fold.

API, CLI and workers check the event's time and mask values of sensitive keys. The contract's own
fields are never sensitive (`user`, `usage.input_tokens`); keys in payloads and tags, and unknown
fields, are judged as in the SDK. Values that are not masked keep their bytes.

The id of an event without one follows from the bytes that were sent, so a retried request stays a
duplicate even if the list of sensitive keys has changed.
"""

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from runfold.protocol.codec import Envelope, decode_event
from runfold.protocol.events import EVENT_CLASSES, Error, PlannedNode, Trigger, Usage
from runfold.protocol.time_limits import MAX_FUTURE_S, check_time, latest_us

from .redaction import REDACTED, Redactor

Own = Mapping[str, Mapping[str, Any]]
"""The contract's fields at one level, each with its own fields inside of it."""

_NONE: Final[Own] = {}
_PARTS: Final = {"trigger": Trigger, "usage": Usage, "error": Error, "nodes": PlannedNode}
_CONTRACT_FIELDS: Final[Own] = {
    name: _NONE for cls in EVENT_CLASSES for name in ("type", *cls.__struct_fields__)
} | {name: dict.fromkeys(cls.__struct_fields__, _NONE) for name, cls in _PARTS.items()}

_MASKED: Final = Raw(msgspec.json.encode(REDACTED))
_SAMPLES: Final = {
    b'"': "",
    b"t": True,
    b"f": False,
    b"n": None,
    b"{": {},
    b"[": [],
}
# Matches whole strings possessively, so that the time is linear in the length of the text.
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


class Intake:
    """Thread-safe. `redact_keys` are added to the built-in sensitive keys."""

    def __init__(self, redact_keys: Iterable[str] = (), max_future_s: float = MAX_FUTURE_S) -> None:
        self.redactor: Final = Redactor(redact_keys)
        self._max_future_s = max_future_s

    def latest_us(self) -> int:
        """Return the latest time that an event may have now, in microseconds since the epoch."""
        return latest_us(time.time_ns() // 1000, self._max_future_s)

    def read(self, raw: bytes, latest_us: int) -> Envelope:
        """Decode, check and mask one JSON event; raise `BrokenEvent` with the reason."""
        return self.admit(decode_event(raw)[0], latest_us)

    def admit(self, envelope: Envelope, latest_us: int) -> Envelope:
        """Check and mask a decoded event; raise `BrokenEvent` if its time is out of bounds."""
        check_time("at", envelope.at_us, latest_us)
        body = mask_body(envelope.body, self.redactor)
        return envelope if body is envelope.body else envelope._replace(body=body)


def mask_body(body: bytes, redactor: Redactor) -> bytes:
    """Mask the fields of an event; return the same object if unchanged. Raises parser errors."""
    tree = _decode(body)
    if (
        type(tree) is dict
        and _CONTRACT_FIELDS.keys() >= tree.keys()
        and _needs_no_mask_below(tree.values(), redactor)
    ):
        return body
    return _mask_object(body, redactor, _CONTRACT_FIELDS)


def mask_broken(text: bytes, redactor: Redactor) -> bytes:
    """Mask a text that was sent as an event; in invalid JSON, mask whatever looks like a pair."""

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
    """Return whether no value is to be masked. Known keys are compared as sets, for speed."""
    if type(tree) is dict:
        if not redactor.unmasked_keys.issuperset(tree):
            for key, value in tree.items():
                if redactor.masks(key, value):
                    return False
        tree = tree.values()
    return _needs_no_mask_below(tree, redactor)


def _needs_no_mask_below(values: Iterable[Any], redactor: Redactor) -> bool:
    for value in values:
        if type(value) in _CONTAINERS and not _needs_no_mask(value, redactor):
            return False
    return True


def _mask_object(text: bytes, redactor: Redactor, own: Own) -> bytes:
    changed: dict[str, Raw] = {}
    fields = _decode_object(text)
    for key, value in fields.items():
        if key not in own and redactor.masks(key, _sample(value)):
            changed[key] = _MASKED
        elif (new := _mask(value, redactor, own.get(key, _NONE))) is not value:
            changed[key] = new
    return _encode(fields | changed) if changed else text


def _mask(raw: Raw, redactor: Redactor, own: Own) -> Raw:
    text = bytes(raw)
    if text[:1] == b"[":
        items = _decode_array(text)
        masked = [_mask(item, redactor, own) for item in items]
        is_same = all(new is old for new, old in zip(masked, items, strict=True))
        return raw if is_same else Raw(_encode(masked))
    if text[:1] != b"{":
        return raw
    new = _mask_object(text, redactor, own)
    return raw if new is text else Raw(new)


def _sample(raw: Raw) -> Any:
    """Return a value of the same type: beside the key, the rule depends on nothing else."""
    return _SAMPLES.get(bytes(raw)[:1], 0)

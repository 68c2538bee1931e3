"""Encode and decode events, with every check that the contract requires.

Between emitter and ledger an event is an `Envelope`: the envelope's fields, and the JSON text of
all further fields as the body. A decoded event is valid UTF-8 without U+0000, lone surrogates and
numbers beyond a double, of bounded size and depth. What cannot be repaired raises `BrokenEvent`.
"""

import re
from datetime import UTC, datetime, timedelta
from math import isinf
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct

from runfold.errors import BrokenEvent

from .events import (
    EVENT_CLASSES,
    MAX_DEPTH,
    MAX_EVENT_BYTES,
    MAX_RAW_BYTES,
    VERSION,
    Event,
    EventId,
    RunId,
)
from .ids import derive_event_id
from .truncation import cut_strings

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
MIN_US: Final = (datetime.min.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
MAX_US: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
"""The times that both Python and PostgreSQL can represent, in microseconds since the epoch."""
TYPES: Final = tuple(cls.type for cls in EVENT_CLASSES)
TYPE_NUMBERS: Final = {name: number for number, name in enumerate(TYPES)}
"""The number of an event type in packed frames and in the ledger."""

_ENVELOPE_KEYS: Final = ("type", "run", "id", "at", "v")
_BODY_DECODERS: Final = {cls.type: msgspec.json.Decoder(cls) for cls in EVENT_CLASSES}
_TAG_PREFIXES: Final = {cls.type: f'{{"type":"{cls.type}"'.encode() for cls in EVENT_CLASSES}

TAG_LENGTHS: Final = {name: len(prefix) + 1 for name, prefix in _TAG_PREFIXES.items()}
"""Bytes of the tag and the comma after it at the beginning of an encoded event."""

_ENCODER: Final = msgspec.json.Encoder()
_ANY: Final = msgspec.json.Decoder()
_RAW_FIELDS: Final = msgspec.json.Decoder(dict[str, Raw])


class Envelope(NamedTuple):
    """An event with an encoded body: `at_us` in microseconds since the epoch, `body` as JSON."""

    type: str
    run: str
    id: int
    at_us: int
    body: bytes


class _WireEnvelope(Struct):
    type: str
    run: RunId
    at: Annotated[datetime, Meta(tz=True)]
    id: EventId | None = None
    v: int = VERSION


_WIRE_ENVELOPE: Final = msgspec.json.Decoder(_WireEnvelope)


def to_us(at: datetime) -> int:
    """Return microseconds since the epoch."""
    return (at - EPOCH) // _MICROSECOND


def to_datetime(at_us: int) -> datetime:
    """Return a time in UTC."""
    return EPOCH + timedelta(microseconds=at_us)


def to_rfc3339(at_us: int) -> str:
    """Return a time in UTC with microseconds, as in `2026-11-21T02:00:00.000000Z`."""
    return to_datetime(at_us).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def make_envelope(event: Event, *, run: str, id: int, at_us: int) -> Envelope:  # noqa: A002, the field's name
    """Encode an event; `run`, `id` and `at_us` take precedence over the event's own fields."""
    if event.run is not None or event.id is not None or event.at is not None:
        event = msgspec.structs.replace(event, run=None, id=None, at=None)
    body = replace_unstorable(encode_body(event))
    return Envelope(event.type, run, id, at_us, body)


def encode_body(event: Event) -> bytes:
    """Return the body of an event whose envelope fields are unset."""
    encoded = _ENCODER.encode(event)
    further = encoded[len(_TAG_PREFIXES[event.type]) :]
    return b"{" + further.removeprefix(b",")


def decode_body(event_type: str, body: bytes) -> Event:
    """Return the typed event; raise `BrokenEvent` if a field does not match the contract."""
    try:
        return _BODY_DECODERS[event_type].decode(body)
    except KeyError:
        raise BrokenEvent(_unknown_type(event_type)) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenEvent(explain(error)) from error


def encode_event(envelope: Envelope) -> bytes:
    """Return one JSON object, as in a JSON frame or over HTTP."""
    at_us = envelope.at_us
    # A time outside of the calendar comes from a packed frame only, on its way to a dead letter.
    at = f'"{to_rfc3339(at_us)}"' if MIN_US <= at_us <= MAX_US else str(at_us)
    head = (
        f'{{"type":"{envelope.type}","run":{_ENCODER.encode(envelope.run).decode()},'
        f'"id":{envelope.id},"at":{at},"v":{VERSION}'
    ).encode()
    return head + (b"," + envelope.body[1:] if len(envelope.body) > 2 else b"}")


def decode_event(raw: bytes) -> tuple[Envelope, Event]:
    """Decode one JSON event of any sender; raise `BrokenEvent` with the reason.

    A missing `id` is derived from the content; in an event that is too large, strings are cut.
    """
    check_body(raw, MAX_RAW_BYTES)
    raw = replace_unstorable(raw)
    try:
        content = _ANY.decode(raw)  # checks UTF-8 and every number, inside payloads too
        _check_kind(content)
        if len(raw) > MAX_EVENT_BYTES:
            raw = cut_strings(content, MAX_EVENT_BYTES) or raw
            check_body(raw)
        head = _WIRE_ENVELOPE.decode(raw)
        fields = _RAW_FIELDS.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenEvent(explain(error)) from error
    if "\0" in head.run or "\ufffd" in head.run:
        raise BrokenEvent("run: an id must not contain U+0000, lone surrogates or U+FFFD")
    at_us = to_us(head.at)
    if not MIN_US <= at_us <= MAX_US:  # its offset leads out of the years 1 to 9999
        raise BrokenEvent(f"at: {head.at.isoformat()} is out of range")
    event_id = head.id
    if event_id is None:
        event_id = derive_event_id(msgspec.json.encode(content, order="sorted"))
    for key in _ENVELOPE_KEYS:
        fields.pop(key, None)
    body = _ENCODER.encode(fields)
    return Envelope(head.type, head.run, event_id, at_us, body), decode_body(head.type, body)


def replace_unstorable(json_text: bytes) -> bytes:
    r"""Replace `\u0000` and lone surrogates, which PostgreSQL cannot store, by U+FFFD."""
    if b"\\u" not in json_text or not _SUSPECT.search(json_text):
        return json_text
    return _ESCAPE.sub(lambda match: rb"\ufffd" if match["bad"] else match[0], json_text)


_SUSPECT: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_ESCAPE: Final = re.compile(
    rb"""
    \\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}   # a surrogate pair: valid
    | (?P<bad> \\u0000 | \\u[dD][89a-fA-F][0-9a-fA-F]{2} )
    | \\.                                                        # any other escape, even \\
    """,
    re.VERBOSE | re.DOTALL,
)


def check_body(json_text: bytes, max_bytes: int = MAX_EVENT_BYTES) -> None:
    """Raise `BrokenEvent` for a text that is too large, nested too deeply or not UTF-8."""
    if len(json_text) > max_bytes:
        raise BrokenEvent(f"too large: {len(json_text)} bytes, at most {max_bytes} are allowed")
    if not json_text.isascii():
        try:
            json_text.decode()
        except UnicodeDecodeError as error:
            raise BrokenEvent(explain(error)) from error
    if json_text.count(b"[") + json_text.count(b"{") > MAX_DEPTH:
        depth = 0
        for mark in MARKS.finditer(json_text):
            depth += DEPTHS.get(mark[0], 0)
            if depth > MAX_DEPTH:
                raise BrokenEvent(f"nested too deeply: more than {MAX_DEPTH} levels")


# A string is one match, so that brackets inside of it do not count; an unterminated one extends to
# the end of the text. Possessive, as backtracking would take hours and gigabytes.
MARKS: Final = re.compile(rb'[\[\]{},]|"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
DEPTHS: Final = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


def check_numbers(json_text: bytes) -> None:
    """Raise `BrokenEvent` for a number beyond a double, as many JSON parsers cannot read it."""
    shape = json_text.translate(_SHAPES)
    if b"0e000" in shape or b"0e+000" in shape or _MANY_DIGITS in shape:
        try:
            _ANY.decode(json_text)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BrokenEvent(explain(error)) from error
    if _MANY_DIGITS in shape:  # the parser accepts integers of any length
        for token in _TOKENS.finditer(json_text):
            if token["number"] and isinf(float(token["number"])):
                raise BrokenEvent("not JSON: Number out of range")


_SHAPES: Final = bytes.maketrans(b"123456789E", b"000000000e")
_PYTHON_TYPES: Final = re.compile(r"(?:Expected|got) `[^`$]*`")
_WORD: Final = re.compile(r"\w+")
_JSON_TYPES: Final = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "NoneType": "null",
}
_MANY_DIGITS: Final = b"0" * 309
_TOKENS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|(?P<number>-?\d{309,}[\d.eE+-]*)', re.DOTALL)


def explain(error: Exception) -> str:
    """Return a parser's error as the reason of a dead letter."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: {error}"
    if isinstance(error, RecursionError):
        return f"nested too deeply: more than {MAX_DEPTH} levels"
    if isinstance(error, msgspec.ValidationError):
        # The message names Python types, but the sender may not use Python.
        reason = _PYTHON_TYPES.sub(
            lambda found: _WORD.sub(lambda word: _JSON_TYPES.get(word[0], word[0]), found[0]),
            str(error),
        )
        return f"not as the contract says: {reason}"
    return f"not JSON: {error}"


def _check_kind(content: Any) -> None:
    """Check version and type before the other fields: a mismatch explains all further errors."""
    if not isinstance(content, dict):
        kind = _JSON_TYPES[type(content).__name__]
        raise BrokenEvent(f"an event is a JSON object, not {kind}")
    version = content.get("v", VERSION)
    if isinstance(version, int) and version > VERSION:
        raise BrokenEvent(f"newer version: v is {version}, this Runfold understands {VERSION}")
    if version != VERSION:
        raise BrokenEvent(f"v: expected {VERSION}, got {version!r}")
    event_type = content.get("type")
    if not isinstance(event_type, str) or event_type not in TYPE_NUMBERS:
        raise BrokenEvent(_unknown_type(event_type))


def _unknown_type(event_type: object) -> str:
    return f"unknown type {event_type!r}; known are {' '.join(TYPES)}"

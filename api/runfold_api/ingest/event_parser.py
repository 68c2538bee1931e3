"""Parses events from a request's body: one object, an array, or one object per line."""

import re
from typing import Final

import msgspec
from msgspec import Raw

from runfold.errors import BrokenEvent
from runfold.protocol.codec import Envelope, check_body, explain, replace_unstorable
from runfold.serialization.intake import Intake
from runfold_api.web.problems import EventProblem, RequestRefused

MEDIA_TYPES: Final = ("application/json", "application/x-ndjson", "application/ndjson")
MAX_SHOWN: Final = 20

_LINES: Final = MEDIA_TYPES[1:]
_ONE: Final = msgspec.json.Decoder(Raw)
_MANY: Final = msgspec.json.Decoder(list[Raw])
_AT: Final = re.compile(r"`\$\.?([^`]*)`")
_MISSING: Final = re.compile(r"missing required field `([^`]*)`")
_START: Final = re.compile(r"unknown (type)|newer (v)ersion|(at|run|v): ")


def read_envelopes(body: bytes, media_type: str, intake: Intake) -> list[Envelope]:
    """Return the events with ids and masked secrets; raise `RequestRefused` if one is broken."""
    items = _split(replace_unstorable(body), media_type)
    if not items:
        raise RequestRefused(400, "no-events", "the body has no events")
    latest_us = intake.latest_us()
    envelopes: list[Envelope] = []
    broken: list[EventProblem] = []
    for index, item in enumerate(items):
        try:
            envelopes.append(intake.read(item, latest_us))
        except BrokenEvent as error:
            reason = str(error)
            broken.append(EventProblem(index, _field_of(reason), reason))
    if broken:
        detail = f"{len(broken)} of {len(items)} events are broken; nothing was accepted"
        raise RequestRefused(400, "broken-events", detail, events=broken[:MAX_SHOWN])
    return envelopes


def _split(body: bytes, media_type: str) -> list[bytes]:
    try:
        if media_type in _LINES:
            return _lines(body)
        if body.lstrip()[:1] == b"[":
            return [bytes(item) for item in _MANY.decode(body)]
        lines = _lines(body)
        # Several lines may also be one pretty-printed object.
        return lines if len(lines) > 1 and _is_json(lines[0]) else [body.strip()][: len(lines)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRefused(400, "not-json", explain(error)) from error


def _lines(body: bytes) -> list[bytes]:
    return [line for line in map(bytes.strip, body.split(b"\n")) if line]


def _is_json(line: bytes) -> bool:
    try:
        check_body(line)
        _ONE.decode(line)
    except (BrokenEvent, msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return True


def _field_of(reason: str) -> str | None:
    """Return the field that a reason names: at its start, or in the words of `msgspec`."""
    if start := _START.match(reason):
        return start.group(start.lastindex or 0)
    named = (_AT.search(reason), _MISSING.search(reason))
    return ".".join(each[1] for each in named if each and each[1]) or None

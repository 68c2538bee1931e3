"""Encode buffered events as envelopes that every reader accepts.

Events that a caller built are redacted and normalized first: one bad run id, time or type would
make its whole packed frame unreadable.
"""

import logging
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Raw

from runfold.errors import BrokenEvent
from runfold.protocol.codec import MAX_US, Envelope, make_envelope, to_us
from runfold.protocol.events import (
    ABSENT,
    EVENT_CLASSES,
    MAX_EVENT_BYTES,
    MAX_NAME,
    Error,
    Event,
    Tags,
    Trigger,
)
from runfold.protocol.time_limits import check_time
from runfold.protocol.truncation import cut_text

from .normalize import (
    cut,
    normalize_name,
    normalize_names,
    normalize_run_id,
    normalize_tag,
    normalize_text,
)
from .payloads import encode_payload, redact_raw, shrink
from .redaction import REDACTED, Redactor

MAX_BODY_BYTES: Final = MAX_EVENT_BYTES - 1024
"""Leaves room for the envelope, so that the event as plain JSON is within the limit, too."""
MAX_TEXT: Final = 128 * 1024
"""In characters, of at most six bytes each as JSON, so that one text always fits into an event."""

PAYLOADS: Final = ("inputs", "outputs", "metadata", "data")
PAYLOAD_FIELDS: Final[dict[type[Event], tuple[str, ...]]] = {
    cls: tuple(name for name in cls.__struct_fields__ if name in PAYLOADS) for cls in EVENT_CLASSES
}
NAME_FIELDS: Final = frozenset(
    ("workflow", "project", "user", "session", "node", "name", "node_type", "level")
)
_TEXTS: Final = frozenset(("text", "message", "stack", "reason"))
_KEPT: Final = frozenset(
    ("run", "id", "at", "v", "attempt", "usage", "duration_ms", "exit_code", "status", "stream")
)
CLEANED_FIELDS: Final = {
    cls: tuple(name for name in cls.__struct_fields__ if name not in _KEPT) for cls in EVENT_CLASSES
}
_LEAST_PAYLOAD: Final = 1024
_EXPENDABLE: Final = ("nodes", "parents", "tags")

_log = logging.getLogger("runfold")


BufferedEvent = tuple[Event, str, int, int, int, bool]
"""An event in the buffer: event, run, id, at_us, approximate size in bytes, and whether it is clean
(made by the SDK, redacted and within all limits). A plain tuple, as that is fastest to make."""


def us_of(at: datetime) -> int:
    """Return microseconds since the epoch; a time without a zone is local, as usual in Python."""
    return to_us(at if at.tzinfo is not None else at.astimezone())


def encode_bounded(item: BufferedEvent, redactor: Redactor, latest_us: int = MAX_US) -> Envelope:
    """Encode an event within the limits of size and time; raise `BrokenEvent` if that fails."""
    event, run, event_id, at_us, _, is_clean = item
    try:
        if not is_clean:
            event, run = clean(event, redactor), normalize_run_id(run)
            if not isinstance(event_id, int) or not 0 <= event_id < 2**63:
                raise BrokenEvent(f"id {event_id}: expected 0 to 2**63 - 1")
            if event.at is not None:
                check_time("at", at_us, latest_us)
        envelope = make_envelope(event, run=run, id=event_id, at_us=at_us)
        if len(envelope.body) > MAX_BODY_BYTES:
            shorter = _shorten(event, len(envelope.body))
            envelope = make_envelope(shorter, run=run, id=event_id, at_us=at_us)
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
        raise BrokenEvent(f"{type(event).__name__} of run {run!r}: {error}") from error
    if len(envelope.body) > MAX_BODY_BYTES:
        raise BrokenEvent(f"{envelope.type} of run {run}: too large, {len(envelope.body)} bytes")
    return envelope


def clean(event: Event, redactor: Redactor) -> Event:
    """Mask secrets and normalize names and texts; numbers and types are left to the reader."""
    changes: dict[str, Any] = {}
    for name in CLEANED_FIELDS[type(event)]:
        value = getattr(event, name)
        if value is None or value is ABSENT:
            continue
        if type(value) is str and 0 < len(value) <= MAX_NAME and value.isascii():
            if name in _TEXTS and redactor.has_callable:
                changes[name] = redactor.apply_to_text(name, value)
            continue
        cleaned = _clean_field(name, value, redactor)
        if cleaned is not value:
            changes[name] = cleaned
    return msgspec.structs.replace(event, **changes) if changes else event


def normalize_tags(tags: Any, redactor: Redactor) -> Tags | None:
    """Return tags within the contract's limits, with values of sensitive keys masked."""
    if tags is None:
        return None
    try:
        given = dict(tags)
    except Exception:  # not a mapping; foreign code may raise anything
        given = {"tags": tags}
    normalized: Tags = {}
    for key, value in given.items():
        name = cut(normalize_text(key), MAX_NAME)
        if name:
            recorded = redactor.apply(name, value)
            normalized[name] = REDACTED if recorded is REDACTED else normalize_tag(recorded)
    return normalized


def _clean_field(name: str, value: Any, redactor: Redactor) -> Any:
    if value is None or value is ABSENT:
        return value
    if name in PAYLOADS:
        is_raw = isinstance(value, Raw)
        return redact_raw(value, redactor) if is_raw else encode_payload(value, redactor)
    if name == "tags":
        return normalize_tags(value, redactor)
    if name == "parents":
        return normalize_names(value)
    if name == "parent_run":
        return normalize_run_id(value)
    if name in NAME_FIELDS:
        return normalize_name(value)
    if name in _TEXTS:
        return redactor.apply_to_text(name, normalize_text(value))
    if isinstance(value, str):
        return normalize_text(value)
    if isinstance(value, Trigger | Error):
        parts = {
            part: _clean_field(part, getattr(value, part), redactor)
            for part in value.__struct_fields__
        }
        return msgspec.structs.replace(value, **parts)
    return value


def _shorten(event: Event, size: int) -> Event:
    """Cut texts, then the largest payloads; then leave out lists."""
    changes: dict[str, Any] = {}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if isinstance(value, Error):
            parts = {part: _cut_field(getattr(value, part)) for part in value.__struct_fields__}
            changes[name] = msgspec.structs.replace(value, **parts)
        elif isinstance(value, str):
            changes[name] = _cut_field(value)
            size -= len(value) - len(changes[name])
    raws = {name: getattr(event, name) for name in PAYLOAD_FIELDS[type(event)]}
    trigger: Trigger | None = getattr(event, "trigger", None)
    if trigger is not None:
        raws["trigger"] = trigger.data
    smallest_first = sorted(((len(raw), name) for name, raw in raws.items() if len(raw)))
    room = MAX_BODY_BYTES - (size - sum(length for length, _ in smallest_first))
    for number, (_, name) in enumerate(smallest_first):
        shorter = shrink(raws[name], max(room // (len(smallest_first) - number), _LEAST_PAYLOAD))
        room -= len(shorter)
        if trigger is not None and name == "trigger":
            changes[name] = msgspec.structs.replace(trigger, data=shorter)
        else:
            changes[name] = shorter
    if room < 0:
        left_out = [name for name in _EXPENDABLE if getattr(event, name, None)]
        if left_out:
            _log.warning("a %s event is too large: %s left out", event.type, ", ".join(left_out))
        changes |= dict.fromkeys(left_out)
    return msgspec.structs.replace(event, **changes)


def _cut_field(value: str | None) -> str | None:
    return None if value is None else cut_text(value, MAX_TEXT)

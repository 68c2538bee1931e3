"""Encode many events at once as packed frames, one or more for each shard.

An event costs most here, so there is a fast path: events that the SDK made are clean, and for most
others it is enough to check that nothing has to change. All other events are cleaned one by one.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Annotated, Any, Final

import msgspec
import zstandard
from msgspec import Meta, Raw, ValidationError

from runfold.errors import BrokenEvent
from runfold.protocol import codec
from runfold.protocol.codec import TAG_LENGTHS, TYPE_NUMBERS
from runfold.protocol.events import EVENT_CLASSES, Event
from runfold.protocol.frames import PACKED_FIELD, envelopes_in, pack_columns
from runfold.protocol.streams import shard_of
from runfold.protocol.time_limits import MAX_FUTURE_S, latest_us
from runfold.serialization.event_cleanup import (
    CLEANED_FIELDS,
    MAX_BODY_BYTES,
    NAME_FIELDS,
    PAYLOAD_FIELDS,
    BufferedEvent,
    encode_bounded,
)
from runfold.serialization.normalize import normalize_name, normalize_run_id
from runfold.serialization.payloads import needs_no_change
from runfold.serialization.redaction import Redactor
from runfold.spool.segment import PendingFrame

from .frame_writer import frame_bounds, pack_frames

_MAX_RUNS: Final = 20_000
_MAX_NAMES: Final = 10_000
_MAX_UNCHECKED_BYTES: Final = 255
"""So few bytes outside of a payload can neither nest 128 levels nor hold a number of 309 digits."""

_NOTHING: Final = b""
_COMMA: Final = ord(",")
_BACKSLASH: Final = ord("\\")
_MAX_ID: Final = 2**63 - 1

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode
_Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | float
_decode_flat: Final = msgspec.json.Decoder(dict[str, str | _Number | bool | None]).decode
"""Most payloads are flat objects: this parser checks their values."""

_Read = Callable[[Any], Any]
_FastPath = tuple[int, _Read, _Read, _Read]


def _fast_path(cls: type[Event]) -> _FastPath:
    """Return what the fast path reads of a class: the tag's length, the fields that must hold
    valid names or nothing, the payload, and another payload that must be absent."""
    payloads = ("text",) if "text" in cls.__struct_fields__ else PAYLOAD_FIELDS[cls]
    names = [name for name in CLEANED_FIELDS[cls] if name not in payloads]
    return (
        TAG_LENGTHS[cls.type],
        attrgetter("at", *names, "at"),  # twice, so that it is always a tuple
        attrgetter(payloads[-1]) if payloads else lambda _: _NOTHING,
        attrgetter(payloads[0]) if payloads[1:] else lambda _: _NOTHING,
    )


_FAST_PATHS: Final = {cls: _fast_path(cls) for cls in EVENT_CLASSES}
_NUMBERS: Final = {cls: TYPE_NUMBERS[cls.type] for cls in EVENT_CLASSES}


_Group = tuple[list[BufferedEvent], list[bytes]]
"""The events of one shard in a batch, and their bodies without the opening brace."""
_RunSlot = tuple[Callable[[BufferedEvent], None], Callable[[bytes], None], int]
"""For a run: how to add an event and a body to its group; bytes of its id in an encoded event."""
Broken = tuple[BrokenEvent, int]
"""The reason why an event is not valid, and its size in the buffer."""


class FramePacker:
    """Caches the runs and valid names that it has met; used by one thread at a time."""

    def __init__(self, redactor: Redactor, max_future_s: float = MAX_FUTURE_S) -> None:
        self._redactor = redactor
        self._max_future_s = max_future_s
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._shards = 0
        self._groups: dict[int, _Group] = {}
        self._runs: dict[str, _RunSlot] = {}
        self._valid_names: set[object] = {None}

    def pack(
        self, items: Iterable[BufferedEvent], shards: int
    ) -> tuple[list[PendingFrame], list[Broken]]:
        """Return frames, in order within their shards, and the events that are not valid."""
        if shards != self._shards or len(self._runs) > _MAX_RUNS:
            self._runs.clear()
            self._groups.clear()
            self._shards = shards
        broken = self._sort(items)
        frames: list[PendingFrame] = []
        for shard, (events, bodies) in self._groups.items():
            if events:
                frames += self._make_frames(shard, events, bodies)
                events.clear()
                bodies.clear()
        return frames, broken

    def reshard(self, frame: PendingFrame, packed: bytes, shards: int) -> list[PendingFrame]:
        """Split a frame with these packed bytes for another number of shards."""
        parts = []
        for shard, count, fields in pack_frames(envelopes_in(packed), shards, self._compressor):
            size = frame.size * count // frame.count
            part = PendingFrame(shard, shards, fields[PACKED_FIELD], count, size, own=frame.own)
            parts.append(part)
        parts[0].size += frame.size - sum(part.size for part in parts)
        return parts

    def _sort(self, items: Iterable[BufferedEvent]) -> list[Broken]:
        """Encode each event and add it to the group of its shard."""
        runs, valid_names, redactor = self._runs, self._valid_names, self._redactor
        unmasked_keys = redactor.unmasked_keys
        fast_paths: dict[type[Event], _FastPath] = {} if redactor.has_callable else _FAST_PATHS
        broken: list[Broken] = []
        for item in items:
            event, run, _, _, size, is_clean = item
            try:
                add_item, add_body, run_length = runs[run]
            except (KeyError, TypeError):  # a new run, or an id that is not a string
                item = self._register_run(item)  # noqa: PLW2901, with the normalized run id
                event, run = item[:2]
                add_item, add_body, run_length = runs[run]
            body = None
            try:
                if is_clean:
                    body = _encode(event)[_FAST_PATHS[type(event)][0] :]
                else:
                    begin, names, payload_of, other_of = fast_paths[type(event)]
                    if valid_names.issuperset(names(event)) and not len(other_of(event)):
                        payload = payload_of(event)
                        length = len(payload)
                        if not length:
                            simple = True
                        elif type(payload) is Raw:
                            try:
                                simple = unmasked_keys.issuperset(_decode_flat(payload))
                            except ValidationError:
                                simple = False
                            simple = simple or needs_no_change(_decode(payload), redactor)
                        else:
                            simple = type(payload) is str
                        if simple:
                            encoded = _encode(event)
                            if event.run is not None:
                                begin += run_length
                            own_id = event.id
                            if own_id is not None:
                                begin = encoded.find(_COMMA, begin) + 1
                                if type(own_id) is not int or not 0 <= own_id <= _MAX_ID:
                                    raise BrokenEvent  # noqa: TRY301, `_clean_and_encode` says why
                            if len(encoded) - begin - length <= _MAX_UNCHECKED_BYTES:
                                body = encoded[begin:] if begin else _NOTHING
            except Exception:  # whatever it is, `_clean_and_encode` names it
                body = None
            if body is None or len(body) > MAX_BODY_BYTES:
                try:
                    body = self._clean_and_encode(item)
                except BrokenEvent as error:
                    broken.append((error, size))
                    continue
            if _BACKSLASH in body:  # the search for one byte is ten times faster than for b"\\u"
                body = codec.replace_unstorable(body)
            add_item(item)
            add_body(body or b"}")
        return broken

    def _register_run(self, item: BufferedEvent) -> BufferedEvent:
        """Cache the event's run; return the event under an id that the contract allows."""
        event, run, event_id, at_us, size, is_clean = item
        normalized = normalize_run_id(run)
        if normalized not in self._runs:
            group = self._groups.setdefault(shard_of(normalized, self._shards), ([], []))
            length = len(_encode(normalized)) + len('"run":,')
            self._runs[normalized] = (group[0].append, group[1].append, length)
        if type(run) is str and run == normalized:
            return item
        return msgspec.structs.replace(event, run=None), normalized, event_id, at_us, size, is_clean

    def _clean_and_encode(self, item: BufferedEvent) -> bytes:
        """Return the body of an event of any kind, or raise `BrokenEvent` with the reason."""
        event, is_clean = item[0], item[5]
        latest = latest_us(time.time_ns() // 1000, self._max_future_s)
        body = encode_bounded(item, self._redactor, latest).body
        if not is_clean:
            codec.check_body(body)
            codec.check_numbers(body)
            self._cache_names(event)
        return body[1:]

    def _cache_names(self, event: Event) -> None:
        """Remember the event's valid names, so that the next event takes the fast path."""
        if len(self._valid_names) > _MAX_NAMES:
            self._valid_names = {None}
        for name in NAME_FIELDS.intersection(CLEANED_FIELDS[type(event)]):
            value = getattr(event, name)
            if type(value) is str and normalize_name(value) == value:
                self._valid_names.add(value)

    def _make_frames(
        self, shard: int, items: Sequence[BufferedEvent], bodies: Sequence[bytes]
    ) -> Iterator[PendingFrame]:
        """Pack the events of a shard into as few frames as possible."""
        for first, last in frame_bounds(list(map(len, bodies))):
            events, runs, ids, times, sizes, _ = zip(*items[first:last], strict=True)
            types = map(_NUMBERS.__getitem__, map(type, events))
            own = bodies[first:last]
            packed = pack_columns(runs, types, ids, times, own, self._compressor, b"{")
            yield PendingFrame(shard, self._shards, packed, last - first, sum(sizes))

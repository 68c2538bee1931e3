"""From what runners put to packed frames: many events at once, sorted by shard.

This is where an event costs most, so the common ones take a short way: what the SDK made is
clean already, and of what a caller built it is enough to see that nothing has to change. Every
other event is sealed alone. Whoever writes a packed frame vouches for its bodies (see
`producers/README.md`); both ways do.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Annotated, Any, Final

import msgspec
import zstandard
from msgspec import Meta, Raw, ValidationError

from runfold.errors import BrokenEvent
from runfold.protocol.codec import (
    TAG_LENGTHS,
    TYPE_NUMBERS,
    Envelope,
    check_body,
    check_numbers,
    replace_unstorable,
)
from runfold.protocol.events import EVENT_CLASSES, Event
from runfold.protocol.frames import (
    FRAME_BYTES,
    FRAME_EVENTS,
    PACKED_FIELD,
    encode_packed_frame,
    envelopes_in,
    pack_columns,
)
from runfold.protocol.streams import shard_of
from runfold.protocol.time_limits import MAX_FUTURE_S, latest_us
from runfold.serialization.event_cleanup import (
    CLEANED_FIELDS,
    MAX_BODY_BYTES,
    NAME_FIELDS,
    PAYLOAD_FIELDS,
    BufferedEvent,
    seal_bounded,
)
from runfold.serialization.normalize import normalize_name, normalize_run_id
from runfold.serialization.payloads import is_fine
from runfold.serialization.redaction import Redactor
from runfold.spool.pending_frame import PendingFrame

_MAX_KNOWN: Final = 20_000
_MAX_NAMES: Final = 10_000
_MOST_HARMLESS: Final = 255
"""With so few bytes outside of its payload a body can neither nest 128 levels deep there nor hold
a number of 309 digits."""

_NOTHING: Final = b""
_COMMA: Final = ord(",")
_BACKSLASH: Final = ord("\\")
_MAX_ID: Final = 2**63 - 1

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode
_Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | float
_decode_flat: Final = msgspec.json.Decoder(dict[str, str | _Number | bool | None]).decode
"""Most payloads are flat objects: the parser itself sees that their values are harmless."""

_Read = Callable[[Any], Any]
_Shape = tuple[int, _Read, _Read, _Read]


def _shape(cls: type[Event]) -> _Shape:
    """What the short way looks at: the length of the tag, the fields that have to be known names
    or absent, the payload, another payload that has to be absent."""
    payloads = ("text",) if "text" in cls.__struct_fields__ else PAYLOAD_FIELDS[cls]
    names = [name for name in CLEANED_FIELDS[cls] if name not in payloads]
    return (
        TAG_LENGTHS[cls.type],
        attrgetter("at", *names, "at"),  # twice, so that it is always a tuple
        attrgetter(payloads[-1]) if payloads else _no_payload,
        attrgetter(payloads[0]) if payloads[1:] else _no_payload,
    )


def _no_payload(_: Event) -> bytes:
    return _NOTHING


_SHAPES: Final = {cls: _shape(cls) for cls in EVENT_CLASSES}
_NUMBERS: Final = {cls: TYPE_NUMBERS[cls.type] for cls in EVENT_CLASSES}


class _Group:
    """The events of one shard in this batch, and their bodies without the first brace."""

    __slots__ = ("bodies", "items")

    def __init__(self) -> None:
        self.items: list[BufferedEvent] = []
        self.bodies: list[bytes] = []


_Known = tuple[Callable[[BufferedEvent], None], Callable[[bytes], None], int]
"""Of a run: where its events and their bodies go, and how much of an encoded event its id takes."""
Broken = tuple[BrokenEvent, int]
"""What is wrong with an event, and its size."""


class FramePacker:
    """Remembers the runs and names that it has seen; used by one thread at a time."""

    def __init__(self, redactor: Redactor, max_future_s: float = MAX_FUTURE_S) -> None:
        self._redactor = redactor
        self._max_future_s = max_future_s
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._shards = 0
        self._groups: dict[int, _Group] = {}
        self._known: dict[str, _Known] = {}
        self._fine: set[object] = {None}

    def pack(
        self, items: Iterable[BufferedEvent], shards: int
    ) -> tuple[list[PendingFrame], list[Broken]]:
        """Parcels, in order within their shards, and the events that cannot be mended."""
        if shards != self._shards or len(self._known) > _MAX_KNOWN:
            self._known.clear()
            self._groups.clear()
            self._shards = shards
        broken = self._sort(items)
        parcels: list[PendingFrame] = []
        for shard, group in self._groups.items():
            if group.items:
                parcels += self._close(shard, group)
                group.items.clear()
                group.bodies.clear()
        return parcels, broken

    def split(self, parcel: PendingFrame, frame: bytes, shards: int) -> list[PendingFrame]:
        """The events of a parcel with this frame, sorted for another number of shards."""
        groups: dict[int, list[Envelope]] = {}
        for envelope in envelopes_in(frame):
            groups.setdefault(shard_of(envelope.run, shards), []).append(envelope)
        parcels, sizes = [], parcel.size
        for shard, envelopes in groups.items():
            packed = encode_packed_frame(envelopes, self._compressor)[PACKED_FIELD]
            size = parcel.size * len(envelopes) // parcel.count
            parcels.append(
                PendingFrame(shard, shards, packed, len(envelopes), size, own=parcel.own)
            )
            sizes -= size
        parcels[0].size += sizes
        return parcels

    def _sort(self, items: Iterable[BufferedEvent]) -> list[Broken]:
        """Encode each event and put it into its group."""
        known, fine, redactor = self._known, self._fine, self._redactor
        harmless = redactor.harmless
        shapes: dict[type[Event], _Shape] = {} if redactor.asks else _SHAPES
        broken: list[Broken] = []
        for item in items:
            event, run, _, _, size, ours = item
            try:
                add_item, add_body, run_length = known[run]
            except (KeyError, TypeError):  # new, or no text at all
                item = self._meet(item)  # noqa: PLW2901, under the id that it will have
                event, run = item[:2]
                add_item, add_body, run_length = known[run]
            body = None
            try:
                if ours:
                    body = _encode(event)[_SHAPES[type(event)][0] :]
                else:
                    begin, names, payload_of, other_of = shapes[type(event)]
                    if fine.issuperset(names(event)) and not len(other_of(event)):
                        payload = payload_of(event)
                        length = len(payload)
                        if not length:
                            simple = True
                        elif type(payload) is Raw:
                            try:
                                simple = harmless.issuperset(_decode_flat(payload))
                            except ValidationError:
                                simple = False
                            simple = simple or is_fine(_decode(payload), redactor)
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
                                    raise BrokenEvent  # noqa: TRY301, `_seal` says why
                            if len(encoded) - begin - length <= _MOST_HARMLESS:
                                body = encoded[begin:] if begin else _NOTHING
            except Exception:  # whatever it is, `_seal` names it
                body = None
            if body is None or len(body) > MAX_BODY_BYTES:
                try:
                    body = self._seal(item)
                except BrokenEvent as error:
                    broken.append((error, size))
                    continue
            if _BACKSLASH in body:  # asked so, it is ten times faster than for the bytes b"\\u"
                body = replace_unstorable(body)
            add_item(item)
            add_body(body or b"}")
        return broken

    def _meet(self, item: BufferedEvent) -> BufferedEvent:
        """An event of a run that is not known yet, under an id that the contract allows."""
        event, run, event_id, at_us, size, ours = item
        fitted = normalize_run_id(run)
        if fitted not in self._known:
            group = self._groups.setdefault(shard_of(fitted, self._shards), _Group())
            length = len(_encode(fitted)) + len('"run":,')
            self._known[fitted] = (group.items.append, group.bodies.append, length)
        if type(run) is str and run == fitted:
            return item
        return msgspec.structs.replace(event, run=None), fitted, event_id, at_us, size, ours

    def _seal(self, item: BufferedEvent) -> bytes:
        """The long way; raises `BrokenEvent` when an event cannot be mended."""
        event, ours = item[0], item[5]
        latest = latest_us(time.time_ns() // 1000, self._max_future_s)
        body = seal_bounded(item, self._redactor, latest).body
        if not ours:
            check_body(body)
            check_numbers(body)
            self._remember(event)
        return body[1:]

    def _remember(self, event: Event) -> None:
        """The names of an event that are fine as they are, for the short way next time."""
        if len(self._fine) > _MAX_NAMES:
            self._fine = {None}
        for name in NAME_FIELDS.intersection(CLEANED_FIELDS[type(event)]):
            value = getattr(event, name)
            if type(value) is str and normalize_name(value) == value:
                self._fine.add(value)

    def _close(self, shard: int, group: _Group) -> Iterator[PendingFrame]:
        """The events of a group in as few frames as they fit into."""
        bodies = group.bodies
        for first, last in _cut(list(map(len, bodies))):
            columns = zip(*group.items[first:last], strict=True)
            events, runs, ids, times, sizes, _ = columns
            table = {run: number for number, run in enumerate(dict.fromkeys(runs))}
            frame = pack_columns(
                list(table),
                map(table.__getitem__, runs),
                map(_NUMBERS.__getitem__, map(type, events)),
                ids,
                times,
                bodies[first:last],
                self._compressor,
                opening=b"{",
            )
            yield PendingFrame(shard, self._shards, frame, last - first, sum(sizes))


def _cut(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """From where to where each frame goes: it is closed by the event that reaches the limit."""
    if len(lengths) <= FRAME_EVENTS and sum(lengths) < FRAME_BYTES:
        yield 0, len(lengths)
        return
    first = size = 0
    for number, length in enumerate(lengths, start=1):
        size += length
        if size >= FRAME_BYTES or number - first == FRAME_EVENTS:
            yield first, number
            first, size = number, 0
    if first < len(lengths):
        yield first, len(lengths)

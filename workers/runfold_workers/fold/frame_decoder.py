"""Frames decoded into events, with dead letters for what cannot be read.

JSON frames may be written by hand, so their secrets are masked here; writers of packed frames are
responsible for their bodies. The times of both are checked here against the time of reading, and
never again for events in the ledger.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, groupby, repeat
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from runfold.errors import BrokenEvent, BrokenFrame
from runfold.protocol.codec import (
    MAX_US,
    TYPE_NUMBERS,
    TYPES,
    Envelope,
    check_body,
    check_numbers,
    encode_event,
    replace_unstorable,
)
from runfold.protocol.frames import EVENTS_FIELD, PACKED_FIELD, Columns, decode_frame, unpack
from runfold.protocol.json_frames import unpack_json
from runfold.protocol.streams import shard_of
from runfold.protocol.time_limits import EARLIEST_US, explain_time
from runfold.serialization.intake import mask_body, mask_broken
from runfold.serialization.redaction import Redactor
from runfold_storage.records.rows import DeadLetter

from .event_facts import Fact, read_fact, read_facts


class StreamEntry(NamedTuple):
    """A frame as it was read from its stream."""

    shard: int
    id: str
    fields: Mapping[bytes, bytes]


class EventLocation(NamedTuple):
    """Where an event came from: the frame's stream id, and the event's index in the frame."""

    shard: int
    frame: str
    ordinal: int


class DecodedEvents(NamedTuple):
    """Events of one shard in columns, their facts, and where they came from."""

    shard: int
    columns: Columns
    facts: Sequence[Fact]
    frames: Sequence[str]
    ordinals: Sequence[int]

    @property
    def locations(self) -> list[EventLocation]:
        """Return the location of each event."""
        return [
            EventLocation(self.shard, frame, ordinal)
            for frame, ordinal in zip(self.frames, self.ordinals, strict=True)
        ]


_SMALL_FRAME: Final = 50
"""Events: joining smaller frames costs less than decoding each by itself."""
NOTHING_REFUSED: Mapping[EventLocation, str] = MappingProxyType({})


def decode_frames(
    entries: Iterable[StreamEntry],
    refused: Mapping[EventLocation, str] = NOTHING_REFUSED,
    *,
    redactor: Redactor,
    latest_us: int = MAX_US,
) -> tuple[list[DecodedEvents], list[DeadLetter]]:
    """Return the events of these frames, and the dead letters.

    Dead letters are unreadable events, those in `refused` (with the reason), those later than
    `latest_us` and those from before the year 2000.
    """
    decoder = _Decoder(redactor)
    for (shard, is_packed), group in groupby(entries, _kind_of_frame):
        (decoder.read_packed if is_packed else decoder.read_json)(shard, list(group))
    arrivals, dead_letters = decoder.arrivals, decoder.dead_letters
    for number, arrival in enumerate(arrivals):
        times = arrival.columns.times
        if min(times) < EARLIEST_US or max(times) > latest_us:
            reasons = [explain_time("at", at_us, latest_us) for at_us in times]
            arrival, letters = exclude(arrival, reasons)  # noqa: PLW2901, its rest
            dead_letters += letters
        if refused:
            arrival, letters = exclude(  # noqa: PLW2901, its rest
                arrival, [refused.get(place) for place in arrival.locations]
            )
            dead_letters += letters
        arrivals[number] = arrival
    return arrivals, dead_letters


def exclude(
    arrival: DecodedEvents, reasons: Sequence[str | None]
) -> tuple[DecodedEvents, list[DeadLetter]]:
    """Leave out the events for which there is a reason; these become dead letters."""
    if not any(reasons):
        return arrival, []
    runs = arrival.columns.runs
    per_event: tuple[Sequence[Any], ...] = arrival.columns[1:]
    letters = []
    for location, reason, number, kind, event_id, at_us, body in zip(
        arrival.locations, reasons, *per_event, strict=True
    ):
        if reason is not None:
            raw = encode_event(Envelope(TYPES[kind], runs[number], event_id, at_us, body))
            shard, frame, ordinal = location
            letters.append(DeadLetter(shard, frame, ordinal, reason, raw))
    kept = [index for index, reason in enumerate(reasons) if reason is None]

    def left(column: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(column[index] for index in kept)

    columns = Columns(runs, *map(left, per_event))
    return DecodedEvents(arrival.shard, columns, *map(left, arrival[2:])), letters


def misrouted_events(
    arrival: DecodedEvents, run_numbers: Iterable[int], shards: int
) -> list[str | None]:
    """Return for each event why it does not belong in this stream, checking only these runs.

    Folded here, such a run would exist in two shards.
    """
    runs, numbers = arrival.columns.runs, arrival.columns.run_numbers
    homes = {number: shard_of(runs[number], shards) for number in run_numbers}
    reasons = {
        number: f"wrong stream: run {runs[number]!r} belongs to shard {home} of {shards}"
        for number, home in homes.items()
        if home != arrival.shard
    }
    return [reasons.get(number) for number in numbers] if reasons else []


def _kind_of_frame(entry: StreamEntry) -> tuple[int, bool]:
    return entry.shard, PACKED_FIELD in entry.fields


class _Decoder:
    """Collects events and dead letters."""

    def __init__(self, redactor: Redactor) -> None:
        self.arrivals: list[DecodedEvents] = []
        self.dead_letters: list[DeadLetter] = []
        self._redactor = redactor

    def read_packed(self, shard: int, entries: Sequence[StreamEntry]) -> None:
        """Decode packed frames of one shard; small ones, as at low rates, are joined."""
        frames: list[tuple[StreamEntry, Columns]] = []
        for entry in entries:
            try:
                frames.append((entry, unpack(entry.fields[PACKED_FIELD])))
            except BrokenFrame as error:
                self.dead_letters.append(_whole(entry, error))
        n = sum(len(columns.bodies) for _, columns in frames)
        if len(frames) > 1 and n < len(frames) * _SMALL_FRAME:
            counts = [len(columns.bodies) for _, columns in frames]
            ids = [entry.id for entry, _ in frames]
            if self._add(shard, _join([columns for _, columns in frames]), ids, counts):
                return
        for entry, columns in frames:
            if not self._add(shard, columns, [entry.id], [len(columns.bodies)]):
                envelopes = [
                    Envelope(
                        TYPES[kind], columns.runs[run], event_id, at_us, replace_unstorable(body)
                    )
                    for run, kind, event_id, at_us, body in zip(*columns[1:], strict=True)
                ]
                self._read_one_by_one(entry, envelopes)

    def read_json(self, shard: int, entries: Sequence[StreamEntry]) -> None:
        """Decode JSON frames of one shard: all at once, or one by one if any is broken."""
        redactor = self._redactor
        if all(EVENTS_FIELD in entry.fields for entry in entries):
            frames_as_sent = [entry.fields[EVENTS_FIELD] for entry in entries]
            unpacked = unpack_json(frames_as_sent, partial(mask_body, redactor=redactor))
            if unpacked is not None:
                columns, counts = unpacked
                if self._add(shard, columns, [entry.id for entry in entries], counts):
                    return
        for entry in entries:
            try:
                items = decode_frame(entry.fields).items
            except BrokenFrame as error:
                letter = _whole(entry, error)
                masked_raw = mask_broken(letter.raw, redactor)
                self.dead_letters.append(letter._replace(raw=masked_raw))
            else:
                self._read_one_by_one(entry, [_masked(item, redactor) for item in items])

    def _add(self, shard: int, columns: Columns, ids: Sequence[str], counts: Sequence[int]) -> bool:
        """Add the events of frames with these ids; False if a body has to be read by itself."""
        try:
            facts = read_facts(columns.types, columns.bodies)
        except BrokenEvent:
            return False
        frames = list(chain.from_iterable(map(repeat, ids, counts)))
        ordinals = list(chain.from_iterable(map(range, counts)))
        self.arrivals.append(DecodedEvents(shard, columns, facts, frames, ordinals))
        return True

    def _read_one_by_one(self, entry: StreamEntry, items: Sequence[Envelope | BrokenEvent]) -> None:
        """Decode events with every check, so that good events survive beside broken ones."""
        runs: dict[str, int] = {}
        rows = []
        facts = []
        ordinals = []
        for ordinal, item in enumerate(items):
            try:
                if isinstance(item, BrokenEvent):
                    raise item
                check_body(item.body)
                check_numbers(item.body)
                kind = TYPE_NUMBERS[item.type]
                facts.append(read_fact(kind, item.body))
            except BrokenEvent as error:
                raw = error.raw if isinstance(item, BrokenEvent) else encode_event(item)
                letter = DeadLetter(entry.shard, entry.id, ordinal, str(error), raw)
                self.dead_letters.append(letter)
                continue
            number = runs.setdefault(item.run, len(runs))
            rows.append((number, kind, item.id, item.at_us, item.body))
            ordinals.append(ordinal)
        if rows:
            columns = Columns(list(runs), *zip(*rows, strict=True))
            frames = [entry.id] * len(rows)
            self.arrivals.append(DecodedEvents(entry.shard, columns, facts, frames, ordinals))


def _join(frames: Sequence[Columns]) -> Columns:
    """Return the columns of several frames as those of one."""
    runs: dict[str, int] = {}
    numbers: list[int] = []
    for frame in frames:
        joined = [runs.setdefault(run, len(runs)) for run in frame.runs]
        numbers += [joined[number] for number in frame.run_numbers]
    columns = zip(*(frame[2:] for frame in frames), strict=True)
    rest = [tuple(chain.from_iterable(column)) for column in columns]
    return Columns(list(runs), tuple(numbers), *rest)


def _masked(
    item: tuple[Envelope, object] | BrokenEvent, redactor: Redactor
) -> Envelope | BrokenEvent:
    if isinstance(item, BrokenEvent):
        item.raw = mask_broken(item.raw, redactor)
        return item
    envelope = item[0]
    return envelope._replace(body=mask_body(envelope.body, redactor))


def _whole(entry: StreamEntry, error: BrokenFrame) -> DeadLetter:
    return DeadLetter(entry.shard, entry.id, 0, str(error), b"".join(entry.fields.values()))

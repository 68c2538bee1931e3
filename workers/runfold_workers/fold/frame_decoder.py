"""Frames decoded into events, with dead letters for what cannot be read.

JSON frames may be written by hand, so their secrets are masked here; writers of packed frames are
responsible for their bodies. The times of both are checked here against the time of reading, and
never again for events in the ledger.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, groupby
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
    arrivals: list[DecodedEvents] = []
    dead_letters: list[DeadLetter] = []
    for (shard, is_packed), group in groupby(entries, _kind_of_frame):
        if is_packed:
            _read_packed(shard, list(group), arrivals, dead_letters)
        else:
            _read_json(shard, list(group), arrivals, dead_letters, redactor)
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


def _read_packed(
    shard: int,
    entries: Sequence[StreamEntry],
    arrivals: list[DecodedEvents],
    dead_letters: list[DeadLetter],
) -> None:
    """Decode packed frames of one shard; small ones, as at low rates, are joined."""
    frames: list[tuple[StreamEntry, Columns]] = []
    for entry in entries:
        try:
            frames.append((entry, unpack(entry.fields[PACKED_FIELD])))
        except BrokenFrame as error:
            dead_letters.append(_whole(entry, error))
    n = sum(len(columns.bodies) for _, columns in frames)
    if len(frames) > 1 and n < len(frames) * _SMALL_FRAME:
        columns = _join([columns for _, columns in frames])
        try:
            facts = read_facts(columns.types, columns.bodies)
        except BrokenEvent:
            pass
        else:
            ids = [entry.id for entry, columns in frames for _ in columns.bodies]
            ordinals = [each for _, columns in frames for each in range(len(columns.bodies))]
            arrivals.append(DecodedEvents(shard, columns, facts, ids, ordinals))
            return
    for entry, columns in frames:
        _read_frame(entry, columns, arrivals, dead_letters)


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


def _read_frame(
    entry: StreamEntry,
    columns: Columns,
    arrivals: list[DecodedEvents],
    dead_letters: list[DeadLetter],
) -> None:
    """Decode one packed frame: its bodies at once, or one by one if any is broken."""
    n = len(columns.bodies)
    try:
        facts = read_facts(columns.types, columns.bodies)
    except BrokenEvent:
        envelopes = [
            Envelope(TYPES[kind], columns.runs[number], event_id, at_us, replace_unstorable(body))
            for number, kind, event_id, at_us, body in zip(*columns[1:], strict=True)
        ]
        _read_one_by_one(entry, envelopes, arrivals, dead_letters)
    else:
        arrivals.append(DecodedEvents(entry.shard, columns, facts, [entry.id] * n, range(n)))


def _read_json(
    shard: int,
    entries: Sequence[StreamEntry],
    arrivals: list[DecodedEvents],
    dead_letters: list[DeadLetter],
    redactor: Redactor,
) -> None:
    """Decode JSON frames of one shard: all at once, or one by one if any is broken."""
    if all(EVENTS_FIELD in entry.fields for entry in entries):
        frames_as_sent = [entry.fields[EVENTS_FIELD] for entry in entries]
        unpacked = unpack_json(frames_as_sent, partial(mask_body, redactor=redactor))
        if unpacked is not None:
            columns, counts = unpacked
            try:
                facts = read_facts(columns.types, columns.bodies)
            except BrokenEvent:
                pass
            else:
                frames = [
                    entry.id for entry, n in zip(entries, counts, strict=True) for _ in range(n)
                ]
                ordinals = [ordinal for n in counts for ordinal in range(n)]
                arrivals.append(DecodedEvents(shard, columns, facts, frames, ordinals))
                return
    for entry in entries:
        try:
            items = decode_frame(entry.fields).items
        except BrokenFrame as error:
            letter = _whole(entry, error)
            dead_letters.append(letter._replace(raw=mask_broken(letter.raw, redactor)))
        else:
            masked = [_masked(item, redactor) for item in items]
            _read_one_by_one(entry, masked, arrivals, dead_letters)


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


def _read_one_by_one(
    entry: StreamEntry,
    items: Sequence[Envelope | BrokenEvent],
    arrivals: list[DecodedEvents],
    dead_letters: list[DeadLetter],
) -> None:
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
            dead_letters.append(DeadLetter(entry.shard, entry.id, ordinal, str(error), raw))
            continue
        number = runs.setdefault(item.run, len(runs))
        rows.append((number, kind, item.id, item.at_us, item.body))
        ordinals.append(ordinal)
    if rows:
        columns = Columns(list(runs), *zip(*rows, strict=True))
        arrivals.append(
            DecodedEvents(entry.shard, columns, facts, [entry.id] * len(rows), ordinals)
        )

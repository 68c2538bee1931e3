"""What came in: frames taken apart into events, and dead letters for what cannot be read."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from runfold.codec import (
    TYPE_NUMBERS,
    TYPES,
    Envelope,
    check_body,
    check_numbers,
    encode_event,
    replace_unstorable,
)
from runfold.errors import BrokenEvent, BrokenFrame
from runfold.frames import PACKED_FIELD, Columns, decode_frame, unpack
from runfold.streams import shard_of
from runfold_storage.rows import DeadLetter

from .facts import Fact, read_fact, read_facts


class StreamEntry(NamedTuple):
    """A frame as it was read: its shard, its stream id and its fields."""

    shard: int
    id: str
    fields: Mapping[bytes, bytes]


class Place(NamedTuple):
    """Where an event stood: the frame's stream id, and the place inside the frame."""

    shard: int
    frame: str
    ordinal: int


class Arrival(NamedTuple):
    """The events of one frame in columns, and what the fold reads of each."""

    shard: int
    frame: str
    columns: Columns
    facts: Sequence[Fact]
    ordinals: Sequence[int]


NOTHING_REFUSED: Mapping[Place, str] = MappingProxyType({})


def take_apart(
    entries: Iterable[StreamEntry], refused: Mapping[Place, str] = NOTHING_REFUSED
) -> tuple[list[Arrival], list[DeadLetter]]:
    """The events of these frames; `refused` tells which of them the database will not have."""
    arrivals = []
    dead_letters: list[DeadLetter] = []
    for entry in entries:
        try:
            arrival = _read(entry, dead_letters)
        except BrokenFrame as error:
            raw = b"".join(entry.fields.values())
            dead_letters.append(DeadLetter(entry.shard, entry.id, 0, str(error), raw))
            continue
        if refused:
            reasons = {
                ordinal: reason
                for ordinal in arrival.ordinals
                if (reason := refused.get(Place(entry.shard, entry.id, ordinal)))
            }
            arrival, letters = leave_out(arrival, reasons)
            dead_letters += letters
        arrivals.append(arrival)
    return arrivals, dead_letters


def leave_out(arrival: Arrival, reasons: Mapping[int, str]) -> tuple[Arrival, list[DeadLetter]]:
    """Without the events at these ordinals, which become dead letters."""
    if not reasons:
        return arrival, []
    columns = arrival.columns
    per_event: tuple[Sequence[Any], ...] = columns[1:]
    kept = [place for place, n in enumerate(arrival.ordinals) if n not in reasons]
    left_out = [place for place, n in enumerate(arrival.ordinals) if n in reasons]
    letters = []
    for place in left_out:
        number, kind, event_id, at_us, body = (column[place] for column in per_event)
        raw = encode_event(Envelope(TYPES[kind], columns.runs[number], event_id, at_us, body))
        ordinal = arrival.ordinals[place]
        letters.append(DeadLetter(arrival.shard, arrival.frame, ordinal, reasons[ordinal], raw))
    left = [tuple(column[place] for place in kept) for column in per_event]
    return (
        arrival._replace(
            columns=Columns(columns.runs, *left),
            facts=[arrival.facts[place] for place in kept],
            ordinals=[arrival.ordinals[place] for place in kept],
        ),
        letters,
    )


def wrong_streams(arrival: Arrival, strangers: Iterable[int], shards: int) -> dict[int, str]:
    """Why events of these runs, numbers in the frame's table, do not belong into its stream.

    Folded here, such a run would be in two places.
    """
    runs = arrival.columns.runs
    homes = {number: shard_of(runs[number], shards) for number in strangers}
    elsewhere = {number: home for number, home in homes.items() if home != arrival.shard}
    if not elsewhere:
        return {}
    return {
        ordinal: f"wrong stream: run {runs[number]!r} belongs to shard {elsewhere[number]} of "
        f"{shards}"
        for ordinal, number in zip(arrival.ordinals, arrival.columns.run_numbers, strict=True)
        if number in elsewhere
    }


def _read(entry: StreamEntry, dead_letters: list[DeadLetter]) -> Arrival:
    if PACKED_FIELD not in entry.fields:
        return _read_json(entry, dead_letters)
    columns = unpack(entry.fields[PACKED_FIELD])
    try:
        facts = read_facts(columns.types, columns.bodies)
    except BrokenEvent:
        pass
    else:
        return Arrival(entry.shard, entry.id, columns, facts, range(len(facts)))
    envelopes = [
        Envelope(TYPES[kind], columns.runs[number], event_id, at_us, replace_unstorable(body))
        for number, kind, event_id, at_us, body in zip(*columns[1:], strict=True)
    ]
    return _read_one_by_one(entry, envelopes, dead_letters)


def _read_json(entry: StreamEntry, dead_letters: list[DeadLetter]) -> Arrival:
    return _read_one_by_one(
        entry,
        [
            item if isinstance(item, BrokenEvent) else item[0]
            for item in decode_frame(entry.fields).items
        ],
        dead_letters,
    )


def _read_one_by_one(
    entry: StreamEntry, items: Sequence[Envelope | BrokenEvent], dead_letters: list[DeadLetter]
) -> Arrival:
    """With every check, so that good events survive beside broken ones."""
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
    columns = Columns(list(runs), *zip(*rows, strict=True)) if rows else _NO_COLUMNS
    return Arrival(entry.shard, entry.id, columns, facts, ordinals)


_NO_COLUMNS: Final = Columns([], (), (), (), (), ())

"""What came in: frames taken apart into events, and dead letters for what cannot be read."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from runfold.codec import Envelope, encode_event
from runfold.errors import BrokenEvent, BrokenFrame
from runfold.events import Event
from runfold.frames import decode_frame
from runfold.streams import shard_of
from runfold_storage.rows import DeadLetter


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
    """The events of one frame, each with its ordinal."""

    shard: int
    frame: str
    events: list[tuple[int, Envelope, Event]]


def take_apart(
    entries: Iterable[StreamEntry],
    refused: Mapping[Place, str] = MappingProxyType({}),
    shards: int | None = None,
) -> tuple[list[Arrival], list[DeadLetter]]:
    """The events of these frames; `refused` tells which of them the database will not have.

    With the deployment's number of `shards`, an event in a stream that is not its run's is a dead
    letter: folded there, the run would be in two places.
    """
    arrivals = []
    dead_letters = []
    for entry in entries:
        try:
            items = decode_frame(entry.fields).items
        except BrokenFrame as error:
            raw = b"".join(entry.fields.values())
            dead_letters.append(DeadLetter(entry.shard, entry.id, 0, str(error), raw))
            continue
        events = []
        homes: dict[str, int] = {}
        for ordinal, item in enumerate(items):
            if isinstance(item, BrokenEvent):
                place = Place(entry.shard, entry.id, ordinal)
                dead_letters.append(DeadLetter(*place, str(item), item.raw))
                continue
            envelope, event = item
            run = envelope.run
            if run not in homes:
                homes[run] = entry.shard if shards is None else shard_of(run, shards)
            reason = None
            if homes[run] != entry.shard:
                reason = f"wrong stream: run {run!r} belongs to shard {homes[run]} of {shards}"
            elif refused:
                reason = refused.get(Place(entry.shard, entry.id, ordinal))
            if reason is None:
                events.append((ordinal, envelope, event))
            else:
                place = Place(entry.shard, entry.id, ordinal)
                dead_letters.append(DeadLetter(*place, reason, encode_event(envelope)))
        arrivals.append(Arrival(entry.shard, entry.id, events))
    return arrivals, dead_letters

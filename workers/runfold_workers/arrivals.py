"""What came in: frames taken apart into events, and dead letters for what cannot be read."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from uuid import UUID

from runfold.codec import Envelope, encode_event
from runfold.errors import BrokenEvent, BrokenFrame
from runfold.events import Event
from runfold.frames import decode_frame
from runfold.ids import run_key
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
    """One event, its run's key, and where it stood."""

    place: Place
    key: UUID
    envelope: Envelope
    event: Event


def take_apart(
    entries: Iterable[StreamEntry], refused: Mapping[Place, str]
) -> tuple[list[Arrival], list[DeadLetter]]:
    """The events of these frames; `refused` tells which of them the database will not have."""
    arrivals = []
    dead_letters = []
    for entry in entries:
        try:
            items = decode_frame(entry.fields).items
        except BrokenFrame as error:
            raw = b"".join(entry.fields.values())
            dead_letters.append(DeadLetter(entry.shard, entry.id, 0, str(error), raw))
            continue
        for ordinal, item in enumerate(items):
            place = Place(entry.shard, entry.id, ordinal)
            if isinstance(item, BrokenEvent):
                dead_letters.append(DeadLetter(*place, str(item), item.raw))
            elif place in refused:
                dead_letters.append(DeadLetter(*place, refused[place], encode_event(item[0])))
            else:
                envelope, event = item
                arrivals.append(Arrival(place, run_key(envelope.run), envelope, event))
    return arrivals, dead_letters

"""Producers: what they say waits in lanes until Redis has answered, and is acknowledged then."""

import threading
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import redis

from histories import to_fields
from oracle import Event, to_envelope
from runfold.frames import PACKED_FIELD
from runfold.parcels import Parcel
from runfold.shipping import Shipper
from runfold.streams import shard_of, stream_key

from .processes import CrashedError, Process
from .stories import Teller
from .transport import Client, Sea

EventRef = tuple[str, int]
"""(run, event id)."""


class Lanes(Protocol):
    """How a producer sends."""

    def add(self, event: Event) -> None:
        """Accept an event."""

    def send(self) -> list[EventRef]:
        """Try to send; returns what is acknowledged now."""

    @property
    def waiting(self) -> bool:
        """Whether anything is not acknowledged yet."""


class ShippedLanes:
    """The SDK's own shipper, without a spool: packed frames, each shard in order."""

    def __init__(self, client: Client) -> None:
        desk = threading.Lock()
        desk.acquire()
        connect: Callable[[], Any] = lambda: client  # noqa: E731
        self._shipper = Shipper(connect, None, _split, _read, desk)
        self._accepted: list[Event] = []
        self._parcels: dict[Parcel, list[EventRef]] = {}

    def add(self, event: Event) -> None:
        self._accepted.append(event)

    def send(self) -> list[EventRef]:
        shipper = self._shipper
        if not shipper.prepare(now=True):
            return []
        self._pack(shipper.shards)
        settled = shipper.send(now=True)
        return [ref for parcel in settled for ref in self._parcels.pop(parcel)]

    @property
    def waiting(self) -> bool:
        return bool(self._accepted or self._parcels)

    def _pack(self, shards: int) -> None:
        groups: dict[int, list[Event]] = {}
        for event in self._accepted:
            groups.setdefault(shard_of(event["run"], shards), []).append(event)
        self._accepted.clear()
        for shard, events in groups.items():
            frame = to_fields(map(to_envelope, events), packed=True)[PACKED_FIELD]
            parcel = Parcel(shard, shards, frame, len(events), len(frame))
            self._parcels[parcel] = [(event["run"], event["id"]) for event in events]
            self._shipper.add([parcel])


def _split(parcel: Parcel, shards: int) -> NoReturn:
    raise AssertionError("the number of shards has changed")


def _read(parcel: Parcel) -> NoReturn:
    raise AssertionError("there is no spool")


class LanesByHand:
    """Somebody's own script: frames of any size and kind, in any order, repeated until answered."""

    def __init__(self, client: Client, world: "Coast") -> None:
        self._client = client
        self._world = world
        self._queues: list[list[Event]] = [[] for _ in range(world.shards)]

    def add(self, event: Event) -> None:
        self._queues[shard_of(event["run"], len(self._queues))].append(event)

    def send(self) -> list[EventRef]:
        rng = self._world.dice.rng
        shard = rng.choice([n for n, queue in enumerate(self._queues) if queue])
        queue = self._queues[shard]
        if rng.random() < 0.2:
            rng.shuffle(queue)
        sent = queue[: rng.choice((1, 1, 2, 5, 50))]
        pipeline = self._client.pipeline(transaction=False)
        packed = rng.random() < 0.5
        pipeline.xadd(stream_key(shard), to_fields(map(to_envelope, sent), packed=packed))
        try:
            pipeline.execute()
        except redis.RedisError:
            return []
        del queue[: len(sent)]
        return [(event["run"], event["id"]) for event in sent]

    @property
    def waiting(self) -> bool:
        return any(self._queues)


class Coast(Sea, Protocol):
    """What producers see of the world."""

    shards: int
    now_us: int
    runs: list[str]
    said: dict[EventRef, Event]
    poisoned: set[EventRef]
    acknowledged: set[EventRef]


class Runner:
    """A producer: says something new now and then, and sends; dies with what it had not sent."""

    def __init__(self, world: Coast) -> None:
        self._world = world
        self._teller: Teller
        self._lanes: Lanes
        self._start()

    def step(self) -> None:
        """A moment of its life."""
        dice = self._world.dice
        if dice.strikes("jump"):
            self._teller.now_us += dice.rng.choice((-7_200_000_000, -1_000_000, 86_400_000_000))
        try:
            for _ in range(0 if dice.calm else dice.rng.choice((0, 1, 1, 2, 6))):
                self._say()
            if self._lanes.waiting:
                self._world.acknowledged.update(self._lanes.send())
        except CrashedError:
            self._start()

    @property
    def waiting(self) -> bool:
        """Whether it has something to send."""
        return self._lanes.waiting

    def _start(self) -> None:
        world, process = self._world, Process(self._world)
        rng = world.dice.rng
        client = Client(world, process)
        self._lanes = ShippedLanes(client) if rng.random() < 0.5 else LanesByHand(client, world)
        self._teller = Teller(rng, world.now_us + rng.choice((0, 0, -5_000_000, 60_000_000)))

    def _say(self) -> None:
        world, rng = self._world, self._world.dice.rng
        if not world.runs or rng.random() < 0.15:
            world.runs.append(self._teller.open_run(len(world.runs)))
        run = rng.choice(world.runs[-6:] if rng.random() < 0.7 else world.runs)
        poison = world.dice.strikes("poison")
        event = self._teller.say(run, poison=poison)
        ref = (run, event["id"])
        assert ref not in world.said, "the story gives an id out twice"
        world.said[ref] = event
        if poison:
            world.poisoned.add(ref)
        self._lanes.add(event)

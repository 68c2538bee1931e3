"""Producers: what they say waits in lanes until Redis has answered, and is acknowledged then."""

from collections import deque
from typing import Protocol

import redis

from histories import to_fields
from oracle import Event, to_envelope
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
    """The SDK's own shipper: packed frames, each shard in order."""

    def __init__(self, client: Client) -> None:
        self._shipper = Shipper(lambda: client, None)  # type: ignore[arg-type,return-value]  # as far as it is used
        self._accepted: deque[Event] = deque()
        self._sent: dict[int, deque[EventRef]] = {}

    def add(self, event: Event) -> None:
        self._accepted.append(event)

    def send(self) -> list[EventRef]:
        shipper = self._shipper
        if not shipper.prepare(now=True):
            return []
        while self._accepted:
            event = self._accepted.popleft()
            added = {shard: lane.added for shard, lane in shipper.lanes.items()}
            shipper.add(to_envelope(event), 1)
            [shard] = [s for s, lane in shipper.lanes.items() if lane.added != added.get(s, 0)]
            self._sent.setdefault(shard, deque()).append((event["run"], event["id"]))
        shipper.send(now=True)
        acknowledged: list[EventRef] = []
        for shard, lane in shipper.lanes.items():
            sent = self._sent[shard]
            while len(sent) > lane.added - lane.acknowledged:
                acknowledged.append(sent.popleft())
        return acknowledged

    @property
    def waiting(self) -> bool:
        return bool(self._accepted) or any(self._sent.values())


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

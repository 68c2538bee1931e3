"""Producers: the SDK's recorder, or somebody's own script; what is acknowledged must arrive."""

from typing import Protocol

import redis

from histories import as_recorded, to_fields
from oracle import Event, to_envelope
from runfold.protocol.streams import shard_of, stream_key
from runfold.settings import Backpressure

from .processes import CrashedError, Process
from .recorders import EventRef, Harbour, RecorderLanes
from .stories import Teller
from .transport import Client


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


class Coast(Harbour, Protocol):
    """What producers see of the world."""

    now_us: int
    runs: list[str]
    said: dict[EventRef, Event]
    poisoned: set[EventRef]
    acknowledged: set[EventRef]


class Runner:
    """A producer: says something new now and then, and sends; dies with what was not safe."""

    def __init__(self, world: Coast) -> None:
        self._world = world
        self._teller: Teller
        self._lanes: RecorderLanes | LanesByHand
        self.process: Process
        self.recorders: list[RecorderLanes] = []
        self._sweeps = False
        self._start()

    def step(self) -> None:
        """A moment of its life."""
        dice = self._world.dice
        if dice.strikes("jump"):
            self._teller.now_us += dice.rng.choice((-7_200_000_000, -1_000_000, 86_400_000_000))
        try:
            for _ in range(0 if dice.calm else dice.rng.choice((0, 1, 1, 2, 6))):
                self._say()
            if isinstance(self._lanes, RecorderLanes) and dice.strikes("exit"):
                self._world.acknowledged.update(self._lanes.leave())
                self._restart()
            elif self._lanes.waiting:
                self._world.acknowledged.update(self._lanes.send())
        except CrashedError:
            self._restart()

    def work(self) -> None:
        """Its flusher's turn while the runner waits."""
        if isinstance(self._lanes, RecorderLanes):
            self._lanes.work()

    def sweep(self) -> None:
        """A later process, that has nothing to say but looks for what others have left."""
        if not self._sweeps:
            self._sweeps = True
            self._start()
        self._say()
        self._world.acknowledged.update(self._lanes.send())

    @property
    def waiting(self) -> bool:
        """Whether it has something to send."""
        return self._lanes.waiting

    def end(self) -> None:
        """No process of it lives on."""
        if isinstance(self._lanes, RecorderLanes):
            self._lanes.vanish()

    def _restart(self) -> None:
        self.end()
        self._start()

    def _start(self) -> None:
        world = self._world
        rng = world.dice.rng
        self.process = Process(world)
        if self._sweeps:
            self._lanes = self._record("spool")
        elif rng.random() < 0.6:
            self._lanes = self._record(rng.choice(("spool", "spool", "block", "drop_oldest")))
        else:
            self._lanes = LanesByHand(Client(world, self.process), world)
        self._teller = Teller(rng, world.now_us + rng.choice((0, 0, -5_000_000, 60_000_000)))

    def _record(self, backpressure: Backpressure) -> RecorderLanes:
        self.recorders.append(RecorderLanes(self._world, self.process, backpressure))
        self.process.in_background = self._interrupt
        return self.recorders[-1]

    def _interrupt(self) -> None:
        """Another thread of the same process, while one waits for Redis."""
        lanes = self._lanes
        if not isinstance(lanes, RecorderLanes) or not lanes.can_be_interrupted:
            return
        if self._world.dice.rng.random() < 0.5:
            self._say()
        else:
            self._world.acknowledged.update(lanes.flush())

    def _say(self) -> None:
        world, rng = self._world, self._world.dice.rng
        if not world.runs or rng.random() < 0.15:
            world.runs.append(self._teller.open_run(len(world.runs)))
        run = rng.choice(world.runs[-6:] if rng.random() < 0.7 else world.runs)
        poison = world.dice.strikes("poison")
        event = self._teller.say(run, poison=poison)
        if isinstance(self._lanes, RecorderLanes):
            event = as_recorded(event)
        ref = (run, event["id"])
        assert ref not in world.said, "the story gives an id out twice"
        world.said[ref] = event
        if poison:
            world.poisoned.add(ref)
        self._lanes.add(event)

"""Producers: the SDK's recorder, or a hand-written script; what is acknowledged must arrive."""

from typing import Protocol

import redis

from event_histories import normalize_event, to_fields
from oracle import Event, to_envelope
from runfold.protocol.streams import shard_of, stream_key
from runfold.settings import Backpressure

from .event_generator import EventGenerator
from .fake_redis import FakeRedisClient
from .processes import CrashedError, Process
from .recorders import EventRef, RecorderContext, RecorderProducer


class ScriptProducer:
    """A hand-written script: frames of any size and kind, in any order, repeated until answered."""

    def __init__(self, client: FakeRedisClient, world: "ProducerContext") -> None:
        self._client = client
        self._world = world
        self._queues: list[list[Event]] = [[] for _ in range(world.shards)]

    def add(self, event: Event) -> None:
        self._queues[shard_of(event["run"], len(self._queues))].append(event)

    def send(self) -> list[EventRef]:
        rng = self._world.faults.rng
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


class ProducerContext(RecorderContext, Protocol):
    """What producers see of the world."""

    now_us: int
    runs: list[str]
    emitted: dict[EventRef, Event]
    poisoned: set[EventRef]
    acknowledged: set[EventRef]


class Runner:
    """A producer: emits events and sends them; when it dies, unsafe events are lost."""

    def __init__(self, world: ProducerContext) -> None:
        self._world = world
        self._generator: EventGenerator
        self._producer: RecorderProducer | ScriptProducer
        self.process: Process
        self.recorders: list[RecorderProducer] = []
        self._is_adopting = False
        self._start()

    def step(self) -> None:
        """A moment of its life."""
        faults = self._world.faults
        if faults.occurs("clock_jump"):
            self._generator.now_us += faults.rng.choice(
                (-7_200_000_000, -1_000_000, 86_400_000_000)
            )
        try:
            for _ in range(0 if faults.calm else faults.rng.choice((0, 1, 1, 2, 6))):
                self._emit_event()
            if isinstance(self._producer, RecorderProducer) and faults.occurs("exit"):
                self._world.acknowledged.update(self._producer.leave())
                self._restart()
            elif self._producer.waiting:
                self._world.acknowledged.update(self._producer.send())
        except CrashedError:
            self._restart()

    def work(self) -> None:
        """Its flusher's turn while the runner waits."""
        if isinstance(self._producer, RecorderProducer):
            self._producer.work()

    def adopt_segments(self) -> None:
        """A later process, that has nothing to say but looks for what others have left."""
        if not self._is_adopting:
            self._is_adopting = True
            self._start()
        self._emit_event()
        self._world.acknowledged.update(self._producer.send())

    @property
    def waiting(self) -> bool:
        """Whether it has something to send."""
        return self._producer.waiting

    def end(self) -> None:
        """No process of it lives on."""
        if isinstance(self._producer, RecorderProducer):
            self._producer.discard()

    def _restart(self) -> None:
        self.end()
        self._start()

    def _start(self) -> None:
        world = self._world
        rng = world.faults.rng
        self.process = Process(world)
        if self._is_adopting:
            self._producer = self._record("spool")
        elif rng.random() < 0.6:
            self._producer = self._record(rng.choice(("spool", "spool", "block", "drop_oldest")))
        else:
            self._producer = ScriptProducer(FakeRedisClient(world, self.process), world)
        self._generator = EventGenerator(
            rng, world.now_us + rng.choice((0, 0, -5_000_000, 60_000_000))
        )

    def _record(self, backpressure: Backpressure) -> RecorderProducer:
        self.recorders.append(RecorderProducer(self._world, self.process, backpressure))
        self.process.background_work = self._run_other_thread
        return self.recorders[-1]

    def _run_other_thread(self) -> None:
        """Another thread of the same process, while one waits for Redis."""
        producer = self._producer
        if not isinstance(producer, RecorderProducer) or not producer.allows_other_thread:
            return
        if self._world.faults.rng.random() < 0.5:
            self._emit_event()
        else:
            self._world.acknowledged.update(producer.flush())

    def _emit_event(self) -> None:
        world, rng = self._world, self._world.faults.rng
        if not world.runs or rng.random() < 0.15:
            world.runs.append(self._generator.open_run(len(world.runs)))
        run = rng.choice(world.runs[-6:] if rng.random() < 0.7 else world.runs)
        poison = world.faults.occurs("poison")
        event = self._generator.make_event(run, poison=poison)
        if isinstance(self._producer, RecorderProducer):
            event = normalize_event(event)
        ref = (run, event["id"])
        assert ref not in world.emitted, "the generator gave an id out twice"
        world.emitted[ref] = event
        if poison:
            world.poisoned.add(ref)
        self._producer.add(event)

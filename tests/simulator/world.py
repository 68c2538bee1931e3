"""A history: the order in which actors act, the faults that occur, and the end.

First faults occur and a random actor acts next; then the faults stop, and every actor can finish.
The checks run at random moments, and at the end.
"""

import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from event_histories import to_fields
from oracle import Event, to_envelope
from runfold.delivery.dispatcher import ADOPT_INTERVAL_S
from runfold.protocol.ids import run_key_bytes
from runfold.protocol.streams import shard_of, stream_key
from runfold.spool import drop_counter
from runfold.spool.segment import SUFFIX
from runfold_workers.fold.run_cache import RunRef

from .checks import check, check_drops, check_end, check_orders, refs_of
from .event_generator import START_US
from .fake_database import FakeDatabase
from .fake_redis import FakeRedis, to_text
from .fault_injector import FaultInjector
from .patches import patch_recorders, patch_workers
from .processes import Process
from .recorders import EventRef
from .runners import Runner
from .simulated_disk import SimulatedDisk
from .workers import SimulatedWorker

MAX_ROUNDS = 300
"""Turns of each worker until everything must be folded once all is calm."""
_MOST_SLEEPS = 5000
_MAX_DEPTH = 3
"""How many actors can be in the middle of a step at once."""
_CHECKS = 0.015


class Actor(Protocol):
    """A worker or a producer."""

    def step(self) -> None:
        """Do the next thing."""


class World:
    """The state of one history."""

    def __init__(self, seed: int) -> None:
        self.faults = FaultInjector(seed)
        rng = self.faults.rng
        self.shards = rng.choice((1, 1, 2, 3))
        self.now_us = START_US
        self.disk = SimulatedDisk(self)
        self.spool: Path
        self.redis = FakeRedis(self.shards)
        self.redis.values["runfold:shards"] = str(self.shards).encode()
        self.database = FakeDatabase(self.shards, rng.choice(("leases", "none", "random")))
        self.runs: list[str] = []
        self.emitted: dict[EventRef, Event] = {}
        self.poisoned: set[EventRef] = set()
        self.acknowledged: set[EventRef] = set()
        self.max_cache_bytes = rng.choice((0, 4_000, 8_000, 30_000, 300_000_000))
        self.direct_write_limit = rng.choice((0, 0, 3, 10, 2000))
        self.trace = 0
        self._steps = 0
        self._redis_ahead_ms = 0
        self._outage_until_us = self._sleeps = 0
        self._busy: list[Actor] = []
        self._workers = [SimulatedWorker(self) for _ in range(rng.choice((1, 2, 3)))]
        self._runners: list[Runner] = []
        self._actors: list[Actor] = []

    def ref_of(self, run: str) -> RunRef:
        """Under which key the tables have a run."""
        return shard_of(run, self.shards), run_key_bytes(run)

    def play(self) -> None:
        """Run the whole history."""
        with (
            tempfile.TemporaryDirectory(prefix="runfold-") as folder,
            patch_recorders(self, self._seconds),
            patch_workers(self, self._seconds),
        ):
            self.spool = Path(folder) / "spool"
            self._runners += [Runner(self) for _ in range(self.faults.rng.choice((1, 2, 3)))]
            self._actors += [*self._workers, *self._workers, *self._runners]
            length = self.faults.rng.randint(25, 120)
            while self._steps < length:
                self.run_other_actor()
                if self.faults.occurs_with(_CHECKS):
                    check(self)
            self._become_calm()
            for _ in range(MAX_ROUNDS):
                for worker in self._workers:
                    self._run_actor(worker)
                if self._is_folded():
                    break
            check_end(self)
            for worker in self._workers:
                self._run_actor(worker, worker.end)
            recorders = [one for runner in self._runners for one in runner.recorders]
            check_orders(self, recorders)
            check_drops(self, recorders)

    def _become_calm(self) -> None:
        """Stop the faults, and let producers send all that is left, on disks too."""
        self.faults.calm = True
        self.redis.is_away, self.redis.full = False, set()
        for _ in range(MAX_ROUNDS):
            if not any(runner.waiting for runner in self._runners):
                break
            for runner in self._runners:
                self._run_actor(runner)
        assert not any(runner.waiting for runner in self._runners), "producers do not finish"
        for runner in self._runners:
            runner.end()
        adopter = self._runners[0]
        self._actors = [*self._workers, adopter]
        for _ in range(MAX_ROUNDS):
            self.now_us += int(ADOPT_INTERVAL_S * 1e6)
            self._run_actor(adopter, adopter.adopt_segments)
            if not self._files_left():
                break
        assert not self._files_left(), "segments or counters are left in the spool"
        adopter.end()

    def _files_left(self) -> list[Path]:
        """Return the segments and the counters of dropped events that wait for a process."""
        return [*self.spool.glob(f"*{SUFFIX}"), *self.spool.glob(f"*{drop_counter.SUFFIX}")]

    def run_other_actor(self) -> None:
        """Let an actor that is not in the middle of a step take its next one."""
        if len(self._busy) >= _MAX_DEPTH:
            return
        self._inject_faults()
        idle = [actor for actor in self._actors if actor not in self._busy]
        if idle:
            self._run_actor(self.faults.rng.choice(idle))

    def sleep(self, seconds: float) -> None:
        """A producer waits."""
        self._sleeps += 1
        assert self._sleeps < _MOST_SLEEPS, "a producer waits for ever"
        self._advance_time(seconds)
        runner = self._busy[-1]
        assert isinstance(runner, Runner)
        runner.work()
        self.run_other_actor()

    @property
    def current_process(self) -> Process:
        """The process that is running now."""
        actor = self._busy[-1]
        assert isinstance(actor, Runner | SimulatedWorker)
        return actor.process

    def _advance_time(self, seconds: float = 0.0) -> None:
        self.now_us += int(seconds * 1e6) + self.faults.rng.randrange(800_000)
        self.redis.now_ms = self.now_us // 1000 + self._redis_ahead_ms
        if self.now_us >= self._outage_until_us:
            self.redis.is_away, self.redis.full = False, set()

    def _run_actor(self, actor: Actor, act: Callable[[], None] | None = None) -> None:
        self._advance_time()
        self._steps += 1
        self._busy.append(actor)
        try:
            (act or actor.step)()
        finally:
            self._busy.pop()
        state = f"{self._actors.index(actor)} {self.database.tables.positions}"
        self.trace = zlib.crc32(state.encode(), self.trace)

    def _seconds(self) -> float:
        return self.now_us / 1e6

    def _is_folded(self) -> bool:
        positions = self.database.tables.positions
        return all(
            position.position == to_text(self.redis.last(shard))
            for shard, position in positions.items()
        )

    def _inject_faults(self) -> None:
        """Inject the faults that no actor causes."""
        faults, rng = self.faults, self.faults.rng
        shard = rng.randrange(self.shards)
        if faults.occurs("clock_jump"):
            self._redis_ahead_ms += rng.choice((-7_200_000, -500, 3_600_000))
        if faults.occurs("outage"):
            self._outage_until_us = self.now_us + rng.choice((500_000, 3_000_000, 40_000_000))
            self.redis.is_away = rng.random() < 0.5
            self.redis.full = set(rng.choices(range(self.shards), k=2))
        if faults.occurs("unreadable_frame"):
            fields = rng.choice(({b"packed": b"RF?"}, {b"events": b"oops"}, {b"other": b"1"}))
            self.redis.add(stream_key(shard), fields)
        if faults.occurs("redelivery") and self.redis.history[shard]:
            self.redis.add(stream_key(shard), self._make_redelivery(shard))
        if faults.occurs("deletion") and self.database.tables.runs:
            self.database.delete(rng.choice(list(self.database.tables.runs)))
        if faults.occurs("feed_loss"):
            if rng.random() < 0.5:
                self.database.changes.clear()
            else:
                self.database.change_behind(shard)

    def _make_redelivery(self, shard: int) -> dict[bytes, bytes]:
        """A frame that was there before, or its events among others in another frame."""
        rng = self.faults.rng
        frames = [fields for _, fields in rng.choices(self.redis.history[shard], k=2)]
        refs = [ref for fields in frames for ref in refs_of(fields) if ref is not None]
        if not refs or rng.random() < 0.4:
            return dict(frames[0])
        rng.shuffle(refs)
        events = [to_envelope(self.emitted[ref]) for ref in refs[: rng.randint(1, 30)]]
        return to_fields(events, packed=rng.random() < 0.5)


class FailedHistoryError(AssertionError):
    """A check failed; the message says how to repeat the history."""


def simulate(seed: int) -> World:
    """Run the history of a seed; raise `FailedHistoryError` when a check fails."""
    world = World(seed)
    try:
        world.play()
    except Exception as error:
        raise FailedHistoryError(
            f"seed {seed}: {type(error).__name__}: {str(error)[:500]}\n"
            f"again: PYTHONPATH=tests python -m simulator --seed {seed}"
        ) from error
    return world

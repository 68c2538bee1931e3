"""Workers: the real loop, one turn at a time, started again when it dies or fails."""

import threading
from collections.abc import Generator
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol

from runfold_storage.checkpoints.liveness_limits import Limits
from runfold_workers.consumer.committer import Committer
from runfold_workers.consumer.loop import Loop
from runfold_workers.consumer.pipeline import Pipeline
from runfold_workers.consumer.worker import PASSING, Publisher, Worker, WorkerSettings, _committed
from runfold_workers.shards.monitor import ShardMonitor
from runfold_workers.shards.ownership import ShardLeases

from .fake_database import DatabaseContext, FakeConnection
from .fake_redis import FakeRedisClient, RedisContext
from .processes import CrashedError, Process

LEASE_RENEWAL_RATE = 0.3
"""How likely it is that a worker looks at the leases before its next turn."""


class WorkerContext(RedisContext, DatabaseContext, Protocol):
    """What workers see of the world."""

    max_cache_bytes: int


class SimulatedWorker:
    """A worker process, and its successors."""

    def __init__(self, world: WorkerContext) -> None:
        self._world = world
        self.process = Process(world)
        self._worker = _new_worker()
        self._turns: Generator[None, None, None] | None = None

    def step(self) -> None:
        """One turn of the loop, or a new beginning."""
        if self._world.faults.occurs("stop"):
            self._worker.stop()
        try:
            if self._turns is None:
                self._turns = self._work()
            try:
                next(self._turns)
            except StopIteration:
                self._turns = None
                self._worker = _new_worker()
            except PASSING:  # as `Worker._run` does
                self._turns = None
        except CrashedError:
            self._turns = None
            self.process = Process(self._world)
            self._worker = _new_worker()

    def end(self) -> None:
        """The worker lets go of everything."""
        if self._turns is not None:
            self._turns.close()

    def _work(self) -> Generator[None, None, None]:
        """As `Worker._work` and `Loop.run` do, but one turn at a time, and looking by chance."""
        worker, world = self._worker, self._world
        client: Any = FakeRedisClient(world, self.process)
        writing: Any = FakeConnection(world, self.process)
        reading: Any = FakeConnection(world, self.process)
        with ExitStack() as stack:
            ownership = stack.enter_context(ShardLeases("", worker._owner))
            committer = Committer(
                writing,
                reading=reading,
                max_cache_bytes=world.max_cache_bytes,
                metrics=worker.metrics,
            )
            committed = partial(_committed, Publisher(client, "changes"), worker.metrics)
            pipeline = stack.enter_context(Pipeline(committer, committed))
            watch = stack.enter_context(ShardMonitor("", "", worker.metrics, Limits()))
            loop = Loop(client, reading, committer, pipeline, ownership, watch, worker.metrics)
            while not worker._stop.is_set():
                if world.faults.calm or world.faults.rng.random() < LEASE_RENEWAL_RATE:
                    self._renew_leases(ownership)
                loop.turn(worker._collector, stopping=False)
                yield
            loop.turn(worker._collector, stopping=True)

    def _renew_leases(self, ownership: ShardLeases) -> None:
        """As the thread of the leases does."""
        try:
            ownership._renew()
        except Exception as error:
            ownership._failure = error


def _new_worker() -> Worker:
    worker = Worker(WorkerSettings("", ""))
    worker._stop = threading.Event()
    return worker

"""Workers: the real loop, one turn at a time, started again when it dies or fails."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Protocol

import psycopg
import redis

from runfold_workers.worker import Worker, WorkerSettings

from .processes import CrashedError, Process
from .storage import Connection, Land
from .transport import Client, Sea


class Shore(Sea, Land, Protocol):
    """What workers see of the world."""


class _Stop(threading.Event):
    """A worker that has nothing to do waits no longer than others let it."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


class Folding:
    """A worker process, and its successors."""

    def __init__(self, world: Shore) -> None:
        self._world = world
        self.process = Process(world)
        self._worker = self._new_worker()
        self._turns: Iterator[None] | None = None
        self._reading: Connection

    def step(self) -> None:
        """One turn of the loop, or a new beginning."""
        if self._world.dice.strikes("stop"):
            self._worker.stop()
        try:
            if self._turns is None:
                self._turns = self._connect()
            try:
                next(self._turns)
            except StopIteration:
                self._end()
                self._worker = self._new_worker()
            except (redis.RedisError, psycopg.Error):  # as `Worker._run` does
                self._end()
        except CrashedError:
            self._turns = None
            self.process = Process(self._world)
            self._worker = self._new_worker()

    def _new_worker(self) -> Worker:
        worker = Worker(WorkerSettings("", ""))
        worker._stop = _Stop()
        return worker

    def _connect(self) -> Iterator[None]:
        """As `Worker._work` does."""
        client: Any = Client(self._world, self.process)
        writing: Any = Connection(self._world, self.process)
        reading: Any = Connection(self._world, self.process)
        self._reading = reading
        return self._worker._turns(client, writing, reading)

    def _end(self) -> None:
        self._turns = None
        if not self._reading.broken:
            with suppress(psycopg.Error):
                self._reading.release_leases(self._worker._owner)

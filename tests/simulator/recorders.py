"""The SDK as a producer: a real recorder with its buffer, lanes and spool, but without its thread.

The work of that thread happens at random moments: between two calls of the runner, or during a
flush. What `flush` reports as safe counts as acknowledged from then on.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, Protocol

import msgspec

from oracle import Event, to_envelope
from runfold import Recorder
from runfold.delivery import native_threads
from runfold.delivery.emitter import Flushed
from runfold.protocol.codec import decode_body, to_datetime
from runfold.settings import Backpressure

from .fake_redis import FakeRedisClient, RedisContext
from .processes import Process
from .simulated_disk import DiskContext, SimulatedDisk

EventRef = tuple[str, int]
"""(run, event id)."""

REDIS_URL = "redis://simulated:6379/0"


class RecorderContext(RedisContext, DiskContext, Protocol):
    """What recorders see of the world."""

    disk: SimulatedDisk
    spool: Path
    shards: int


class RecorderProducer:
    """One process's recorder."""

    def __init__(
        self, world: RecorderContext, process: Process, backpressure: Backpressure
    ) -> None:
        rng = world.faults.rng
        self._world = world
        self._process = process
        self._mode = backpressure
        self._recorder = Recorder(
            REDIS_URL,
            heartbeat_s=0,
            buffer_events=rng.choice((3, 20, 1000)),
            backpressure=self._mode,
            spool_dir=str(world.spool),
            connect=self._connect,
        )
        self._emitter = self._recorder._emitter
        self._emitted = self._flushing = 0
        self._accepted: list[EventRef] = []
        self.order: dict[str, list[EventRef]] = {}
        """Of each run, what was accepted."""
        self.is_drained = False
        """Whether it came to its end with nothing left behind."""
        self.dropped_at_exit = 0
        """Events that were given up by the time at which the process ended in good order."""
        self.segments_left = 0
        """Segments of the spool, for others to send."""

    def add(self, event: Event) -> None:
        body = decode_body(event["type"], to_envelope(event).body)
        head = {"run": event["run"], "id": event["id"], "at": to_datetime(event["at_us"])}
        dropped = self._emitter._buffer.dropped
        self._recorder.emit(msgspec.structs.replace(body, **head))
        self._emitted += 1
        if self._mode == "drop_oldest" or self._emitter._buffer.dropped == dropped:
            ref = (event["run"], event["id"])
            self._accepted.append(ref)
            self.order.setdefault(ref[0], []).append(ref)

    def send(self) -> list[EventRef]:
        """A round of the flusher, or a flush; returns what is acknowledged now."""
        if self._world.faults.occurs_with(0.5):
            self.work()
            return []
        return self.flush()

    def flush(self) -> list[EventRef]:
        """Returns what is acknowledged now; also while another thread flushes or sends."""
        self._flushing += 1
        try:
            flushed = self._recorder.flush(self._world.faults.rng.choice((0.0, 0.3, 3.0)))
        finally:
            self._flushing -= 1
        return self._acknowledge(flushed)

    @property
    def allows_other_thread(self) -> bool:
        """Another thread of the runner may come in between; but two may not wait for each other."""
        return self._flushing < 2 and self._mode != "block"

    def work(self) -> None:
        """One round of the flusher."""
        emitter = self._emitter
        if emitter._is_sending:
            return
        emitter._is_sending = True
        try:
            emitter._run_once()
        finally:
            emitter._is_sending = False

    def leave(self) -> list[EventRef]:
        """The process ends in good order; returns what is acknowledged now."""
        if self._world.faults.rng.random() < 0.5:
            safe = self._acknowledge(
                self._recorder.close(self._world.faults.rng.choice((0.0, 2.0)))
            )
        else:
            self._emitter.at_exit()
            safe = self._acknowledge(self._emitter.flushed)
        self.dropped_at_exit = self._emitter._buffer.dropped + self._emitter._buffer.pending
        return safe

    def discard(self) -> None:
        """The process is gone, however it ended."""
        flushed = self._emitter.flushed
        self.is_drained = not flushed.pending and not flushed.spooled
        self._world.disk.leave(self._process)
        self.segments_left = self._world.disk.count_segments_of(self._process, self._world.spool)
        self._emitter._closed = True  # else the end of the tests would flush it
        del self._recorder  # which its finalizer would keep alive through `connect`, and the world

    @property
    def waiting(self) -> bool:
        return not self._emitter._dispatcher.is_idle

    def _connect(self, _: str) -> Any:
        return FakeRedisClient(self._world, self._process)

    def _acknowledge(self, flushed: Flushed) -> list[EventRef]:
        total = flushed.sent + flushed.pending + flushed.dropped + flushed.spooled
        assert self._flushing or total == self._emitted, f"{flushed} of {self._emitted}"
        if flushed.pending or (flushed.dropped and self._mode == "drop_oldest"):
            return []
        safe, self._accepted = self._accepted, []
        return safe


def make_thread_refusal() -> SimpleNamespace:
    """Replace `native_threads`: no thread can start, as at the end of the interpreter."""

    def refuse(*_: object) -> NoReturn:
        raise RuntimeError("the interpreter shuts down: no thread can start")

    return SimpleNamespace(RLock=native_threads.RLock, Thread=refuse)

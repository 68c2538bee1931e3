"""What stands between a runner and Redis.

The runner's thread only appends to a buffer. One daemon thread, started with the first event,
encodes, cuts frames and sends them, again and again until they are in their streams. Promise:
an event that was accepted is in the stream once `flush` says so (at least once, in order per
shard); until then it is in this process's memory and dies with it. When the buffer is full, the
newest events are dropped, counted and reported once a minute.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis
from msgspec import Struct

from . import processes
from .buffer import Barrier, Buffer
from .errors import BrokenEvent
from .parcels import Packer
from .redaction import Redactor
from .sealing import Unsealed
from .settings import Settings
from .shipping import Shipper

LINGER_S: Final = 0.004
"""A frame collects events for this long; the first one after a rest goes at once."""
REST_AFTER_S: Final = 1.0
"""While events come the flusher looks for them by itself, and no runner has to wake it: that would
cost each event of a paced runner six times as much."""

_LOOK_AGAIN_S: Final = 0.05
_TAKE: Final = 8192
_PLENTY: Final = _TAKE // 8
"""So many waiting events are worth a round at once."""
_REPORT_EVERY_S: Final = 60.0

_log = logging.getLogger("runfold")


class Flushed(Struct, frozen=True, kw_only=True):
    """Events of this process so far: in the stream, still waiting, given up."""

    sent: int
    pending: int
    dropped: int


class Emitter:
    """`beat` is called by the flusher: it emits what is due and returns the seconds to the next."""

    def __init__(
        self,
        settings: Settings,
        redactor: Redactor,
        connect: Callable[[], redis.Redis],
        beat: Callable[[bool], float | None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._redactor = redactor
        self._connect = connect
        self._beat = beat
        self._buffer = Buffer(settings.buffer_events, settings.buffer_bytes, self._attend)
        self.put: Final[Callable[[Unsealed], bool]] = self._buffer.put
        """Accept one event, or count it as dropped; never blocks, never raises."""
        self.put_all: Final[Callable[[Sequence[Unsealed]], bool]] = self._buffer.put_all
        """Accept several events, or none of them."""
        self._begin()
        processes.tell(self)

    def _begin(self) -> None:
        self._buffer.empty()
        self._packer = Packer(self._redactor)
        self._shipper = Shipper(self._connect, self._settings.shards, self._packer.split)
        self._lock = threading.RLock()  # a signal handler may emit while its thread holds it
        self._busy = False
        self._thread: threading.Thread | None = None
        self._barriers: list[Barrier] = []
        self._sent = 0
        self._broken = 0
        self._reason = ""
        self._reported = 0
        self._reported_at = float("-inf")
        self._came_at = float("-inf")
        self._urgent = False
        self._retiring = False
        self._closed = False
        self._ending = False
        self._exit_left_s = self._settings.exit_flush_s

    def flush(self, timeout_s: float) -> Flushed:
        """Send what was accepted before this call; returns when it is sent or time is up."""
        is_flusher = threading.current_thread() is self._thread
        if self._buffer.pending and not is_flusher and not self._closed:
            self._start()
            self._urgent = True
            barrier = self._buffer.put_barrier()
            try:
                if self._thread is None:
                    self._work_here(barrier, timeout_s)
                else:
                    barrier.reached.wait(timeout_s)
            finally:
                self._buffer.withdraw(barrier)
        return self.flushed

    @property
    def flushed(self) -> Flushed:
        """How things stand."""
        return Flushed(sent=self._sent, pending=self._buffer.pending, dropped=self._dropped)

    def close(self, timeout_s: float) -> Flushed:
        """Flush, then stop; what comes later is dropped and counted."""
        deadline = time.monotonic() + timeout_s
        self.flush(timeout_s)
        self._buffer.close()
        self._closed = True
        self._set_alert(asleep=False)
        thread = self._thread
        self.retire()
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.1, deadline - time.monotonic()))
        self._report_drops(last=True)
        return self.flushed

    def retire(self) -> None:
        """Nobody can put any more: send what is there, then stop."""
        self._retiring = True
        self._buffer.ring()

    def after_fork(self) -> None:
        """In the child: the parent sends what the parent has; start empty, with nothing shared."""
        self._begin()

    def at_exit(self) -> None:
        """Send what is there, within the time that is left for it altogether."""
        if self._closed:
            return
        self._ending = True
        self._set_alert(asleep=False)
        began = time.monotonic()
        pending = self.flush(self._exit_left_s).pending
        self._exit_left_s = max(0.0, self._exit_left_s - (time.monotonic() - began))
        if pending:
            _log.warning("the process ends: %d events could not be sent and are lost", pending)
        self._report_drops(last=True)

    @property
    def _dropped(self) -> int:
        return self._buffer.dropped + self._broken

    def _attend(self) -> None:
        """What `put` need not look at while all is well."""
        if self._closed:
            self._report_drops()
        elif self._ending:  # a handler that runs after ours: no thread will send this any more
            self.at_exit()
        elif self._thread is None:
            self._start()
        else:
            self._set_alert(asleep=False)
            self._buffer.ring()

    def _set_alert(self, *, asleep: bool) -> None:
        """Whether `put` has to call `_attend`."""
        with self._lock:
            self._buffer.alert = asleep or self._closed or self._ending or self._thread is None

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._busy:
                self._busy = True
                try:
                    thread = threading.Thread(target=self._run, name="runfold", daemon=True)
                    thread.start()
                    self._thread = thread
                    processes.watch_multiprocessing()
                except RuntimeError:  # too late for threads: `flush` sends in its caller's
                    return
                finally:
                    self._busy = False
            self._set_alert(asleep=False)

    def _run(self) -> None:
        while True:
            try:
                timeout_s, rests = self._work()
            except Exception:  # a bug here must neither end the sending nor spin
                _log.exception("sending failed and goes on")
                timeout_s, rests = 1.0, False
            if self._retiring and (self._closed or not self._buffer.pending):
                break
            if rests:
                self._set_alert(asleep=True)  # before looking: whoever puts after it rings
            if not rests or not self._buffer.pending:
                self._buffer.wait(timeout_s)
            if rests:
                self._set_alert(asleep=False)
        self._shipper.close()
        self._thread = None
        self._set_alert(asleep=False)

    def _work_here(self, barrier: Barrier, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        with self._lock:
            if self._busy:  # in a handler that interrupted this very loop: it will go on
                return
            self._busy = True
            try:
                while True:
                    wait_s, _ = self._work()
                    left_s = deadline - time.monotonic()
                    if barrier.reached.is_set() or left_s <= 0:
                        return
                    time.sleep(min(left_s, wait_s or 0.0))
            finally:
                self._busy = False

    def _work(self) -> tuple[float | None, bool]:
        """One round; returns for how long to wait, and whether a new event ends the wait."""
        buffer, shipper = self._buffer, self._shipper
        now, self._urgent = self._urgent, False
        next_beat_s = None if self._ending else self._beat(shipper.failing)
        if not buffer.pending:
            if time.monotonic() - self._came_at > REST_AFTER_S:
                return next_beat_s, True
            return LINGER_S if next_beat_s is None else min(next_beat_s, LINGER_S), False
        if shipper.prepare(now=now):
            if not shipper.has_some_to_send():
                self._load()
            for parcel in shipper.send(now=now):
                self._sent += parcel.count
                buffer.release(parcel.count, parcel.size)
        self._reach_barriers()
        self._report_drops()
        left_s = shipper.left_s()
        if left_s is None:  # everything that was taken is in its stream
            return (0.0 if buffer.waiting >= _PLENTY else LINGER_S), False
        if not shipper.failing:  # one shard may be refused while others are not
            left_s = min(left_s, _LOOK_AGAIN_S)
        return left_s, False

    def _load(self) -> None:
        """From the buffer into the lanes."""
        items: Any = self._buffer.take(_TAKE)
        if not items:
            return
        self._came_at = time.monotonic()
        if Barrier in set(map(type, items)):
            barriers = [item for item in items if isinstance(item, Barrier)]
            items = [item for item in items if not isinstance(item, Barrier)]
            self._barriers += barriers
            self._buffer.release(len(barriers), 0)
        try:
            parcels, broken = self._packer.pack(items, self._shipper.shards)
        except Exception as error:  # a bug: rather these events than all that follow
            _log.exception("%d events could not be packed", len(items))
            parcels, broken = [], [(BrokenEvent(str(error)), item[4]) for item in items]
        self._shipper.add(parcels)
        for reason, size in broken:
            self._buffer.release(1, size)
            self._broken += 1
            self._reason = str(reason)

    def _reach_barriers(self) -> None:
        for barrier in list(self._barriers):
            if barrier.epoch != self._shipper.epoch:  # new, or the number of shards has changed
                barrier.epoch = self._shipper.epoch
                barrier.parcels = self._shipper.outstanding()
            if barrier.reached.is_set() or all(parcel.settled for parcel in barrier.parcels):
                self._barriers.remove(barrier)
                barrier.reached.set()

    def _report_drops(self, *, last: bool = False) -> None:
        dropped, now = self._dropped, time.monotonic()
        if dropped > self._reported and (last or now - self._reported_at >= _REPORT_EVERY_S):
            self._reported, self._reported_at = dropped, now
            _log.warning(
                "%d events dropped so far: %d as the buffer was full or closed, %d not valid %s",
                dropped,
                self._buffer.dropped,
                self._broken,
                self._reason,
            )

"""What stands between a runner and Redis.

The runner's thread only appends to a buffer, and waits only when that is full. One daemon thread,
started with the first event, packs and sends, again and again until the events are in their
streams; what Redis does not take goes to the spool. Promise: an event that was accepted is where
`flush` says it is (in the stream at least once, in order per shard; or on disk); until then it is
in this process's memory and dies with it. What cannot be kept is counted, and reported in the log
and to Redis.
"""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

import redis
from msgspec import Struct

from runfold.serialization.event_cleanup import BufferedEvent
from runfold.serialization.redaction import Redactor
from runfold.settings import Settings

from . import native_threads, process_hooks
from .buffer import Buffer, FlushMarker
from .dispatcher import ADOPT_EVERY_S, Dispatcher

LINGER_S: Final = 0.004
"""A frame collects events for this long; the first one after a rest goes at once."""
REST_AFTER_S: Final = 1.0
"""While events come the flusher looks for them by itself, and no runner has to wake it: that would
cost each event of a paced runner six times as much."""

CHILD_FLUSH_S: Final = 0.25
"""How long the end of a run may wait for Redis in a process that may end abruptly after it."""

_LOOK_AGAIN_S: Final = 0.1
_CHECK_MAIN_S: Final = 1.0
"""How often the flusher of a forked child looks whether anything else runs there."""
_CHECK_FLUSHER_S: Final = 0.5
"""How often a caller that waits for the flusher looks whether it still lives."""
_PLENTY: Final = 1024
"""So many waiting events are worth a round at once."""
_GRACE_S: Final = 2.0
"""How long `flush` may go on beyond its time to get events onto a disk."""
_REPORT_EVERY_S: Final = 60.0

_log = logging.getLogger("runfold")


class Flushed(Struct, frozen=True, kw_only=True):
    """Events of this process so far: in the stream, not safe yet, given up, and safe on disk."""

    sent: int
    pending: int
    dropped: int
    spooled: int = 0


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
        self._buffer = Buffer(
            settings.buffer_events,
            settings.buffer_bytes,
            self._attend,
            settings.backpressure,
            settings.buffer_wait_s,
        )
        self.put: Final[Callable[[BufferedEvent], bool]] = self._buffer.put
        """Accept one event, or count it as dropped; waits only for room, never raises."""
        self.put_all: Final[Callable[[Sequence[BufferedEvent]], bool]] = self._buffer.put_all
        """Accept several events, or none of them."""
        self._begin()
        process_hooks.register(self)

    def _begin(self) -> None:
        self._buffer.empty()
        self._dispatcher = Dispatcher(self._settings, self._redactor, self._connect, self._buffer)
        self._lock = native_threads.RLock()  # a signal handler may emit while its thread holds it
        self._busy = False
        self._alone = False
        self._thread: native_threads.Thread | None = None
        self.ends_abruptly = process_hooks.ends_abruptly()
        self._reported = 0
        self._reported_at = float("-inf")
        self._urgent = False
        self._retiring = False
        self._closed = False
        self._ending = process_hooks.ending
        self._exit_left_s = self._settings.exit_flush_s

    def flush(self, timeout_s: float) -> Flushed:
        """Send what was accepted before this call; returns when it is safe or time is up."""
        self._settle(timeout_s)
        return self.flushed

    def secure(self, timeout_s: float) -> None:
        """The same; what is not sent when time is up goes to the spool, in whatever state Redis
        is."""
        if not self._settle(timeout_s):
            self._dispatcher.keep_all(_GRACE_S)

    def _settle(self, timeout_s: float) -> bool:
        """Whether what was accepted before this call is safe."""
        self._take_over()
        dispatcher = self._dispatcher
        if self._closed or (dispatcher.idle and not self._buffer.pending):
            return True
        if self._is_worker:
            return False
        self._start()
        self._urgent = True
        deadline = time.monotonic() + timeout_s
        barrier = self._buffer.put_barrier()
        try:
            self._wait_for(barrier, deadline)
            if not barrier.reached.is_set() and self._thread is None:
                self._work_here(barrier, deadline)
            if not barrier.reached.is_set() and dispatcher.stuck:
                dispatcher.keep_all(_GRACE_S)
            return barrier.reached.is_set()
        finally:
            self._buffer.withdraw(barrier)

    @property
    def flushed(self) -> Flushed:
        """How things stand."""
        return Flushed(
            sent=self._dispatcher.sent,
            pending=self._buffer.pending + self._dispatcher.unsynced,
            dropped=self._dropped,
            spooled=self._dispatcher.spooled,
        )

    def close(self, timeout_s: float) -> Flushed:
        """Flush, then stop; what comes later is dropped and counted."""
        deadline = time.monotonic() + timeout_s
        self._settle(timeout_s)
        self._buffer.close()
        if self.flushed.pending:
            self._dispatcher.keep_all(_GRACE_S)
        self._closed = True
        self._set_alert(asleep=False)
        thread = self._thread
        self.retire()
        if thread is None:
            self._dispatcher.close()
        elif not thread.is_current():
            thread.join(max(0.1, deadline - time.monotonic()))
        self._report_drops(last=True)
        return self.flushed

    def retire(self) -> None:
        """Nobody can put any more: send what is there, then stop."""
        self._retiring = True
        self._buffer.ring()

    def after_fork(self) -> None:
        """In the child: the parent sends what the parent has; start empty, with nothing shared."""
        self._dispatcher.abandon()
        self._begin()

    def at_exit(self) -> None:
        """Send what is there, within the time that is left for it altogether, or keep it."""
        if self._is_worker:
            return
        if self._closed:
            self._report_drops(last=True)
            return
        self._take_over()
        self._ending = True
        self._buffer.patient = False
        self._set_alert(asleep=False)
        began = time.monotonic()
        self._settle(self._exit_left_s)
        if self.flushed.pending:
            self._dispatcher.keep_all(_GRACE_S)
        self._exit_left_s = max(0.0, self._exit_left_s - (time.monotonic() - began))
        spooled = self._dispatcher.spooled + self._dispatcher.unsynced
        if spooled:
            _log.warning(
                "the process ends: %d events are in the spool for a later one to send", spooled
            )
        if self._buffer.pending:
            _log.warning(
                "the process ends: %d events could not be sent and are lost", self._buffer.pending
            )
        self._report_drops(last=True)

    @property
    def _dropped(self) -> int:
        return self._buffer.dropped + self._dispatcher.broken

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

    @property
    def _is_worker(self) -> bool:
        """Whether the caller interrupts, as a finalizer may, what sends: that will go on."""
        thread = self._thread
        if thread is not None and thread.is_current():
            return True
        return self._busy and bool(self._lock._is_owned())

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._busy and not self._ending:
                self._busy = True
                try:
                    self.ends_abruptly = process_hooks.ends_abruptly()
                    process_hooks.watch_multiprocessing()
                    self._thread = native_threads.Thread(self._run, "runfold")
                    self._thread.start()
                except RuntimeError:  # too late for threads: `flush` sends in its caller's
                    self._thread = None
                    return
                finally:
                    self._busy = False
            self._set_alert(asleep=False)

    def _take_over(self) -> None:
        """At finalization all other threads are dead, whatever they hold: work without them."""
        if sys.is_finalizing() and not self._alone:
            self._alone = True
            self._lock = native_threads.RLock()
            self._busy = False
            self._thread = None
            self._dispatcher.take_over()

    def _run(self) -> None:
        thread = self._buffer.flusher = self._thread
        try:
            self._work_until_retired()
            self._dispatcher.close()
        finally:
            if self._thread is thread:
                self._thread = None
            self._set_alert(asleep=False)

    def _work_until_retired(self) -> None:
        while True:
            try:
                timeout_s, rests = self._work()
            except Exception:  # a bug here must neither end the sending nor spin
                _log.exception("sending failed and goes on")
                timeout_s, rests = 1.0, False
            if self._retiring and (self._closed or not self._buffer.pending):
                break
            if process_hooks.is_orphaned() and (
                self._dispatcher.failing or not self._buffer.pending
            ):
                self._dispatcher.keep_all(_GRACE_S)
                break
            if rests:
                self._set_alert(asleep=True)  # before looking: whoever puts after it rings
            if not rests or self._dispatcher.idle:
                self._buffer.wait(
                    min(timeout_s, _CHECK_MAIN_S) if process_hooks.generation else timeout_s
                )
            if rests:
                self._set_alert(asleep=False)

    def _wait_for(self, barrier: FlushMarker, deadline: float) -> None:
        """Until the flusher has reached it, is dead, or time is up."""
        while (thread := self._thread) is not None and thread.is_alive():
            left_s = deadline - time.monotonic()
            # At the end of a process no greenlet but this one may get a turn any more.
            cooperative = not self._ending
            if left_s <= 0 or barrier.reached.wait(
                min(left_s, _CHECK_FLUSHER_S), cooperative=cooperative
            ):
                return

    def _work_here(self, barrier: FlushMarker, deadline: float) -> None:
        """What the flusher would do, where there can be none."""
        if (
            self._alone and native_threads.is_cooperative()
        ):  # patched sockets need greenlets: to the spool
            return
        if self._dispatcher.failing and time.monotonic() >= deadline:
            return
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return
        try:
            if self._busy:  # in a handler that interrupted this very loop: it will go on
                return
            self._busy = True
            try:
                while True:
                    wait_s, _ = self._work()
                    left_s = deadline - time.monotonic()
                    if barrier.reached.is_set() or left_s <= 0:
                        return
                    time.sleep(min(left_s, wait_s))
            finally:
                self._busy = False
        finally:
            self._lock.release()

    def _work(self) -> tuple[float, bool]:
        """One round; returns for how long to wait, and whether a new event ends the wait."""
        buffer, dispatcher = self._buffer, self._dispatcher
        now, self._urgent = self._urgent, False
        next_beat_s = None if self._ending else self._beat(dispatcher.failing)
        dispatcher.work(now=now)
        self._report_drops()
        if dispatcher.idle:
            if time.monotonic() - dispatcher.came_at > REST_AFTER_S:
                return min(ADOPT_EVERY_S, next_beat_s or ADOPT_EVERY_S), True
            return min(LINGER_S, next_beat_s or LINGER_S), False
        left_s = dispatcher.left_s()
        if left_s is None:  # everything that was taken is in its stream
            return (0.0 if buffer.waiting >= _PLENTY else LINGER_S), False
        return min(left_s, _LOOK_AGAIN_S), False

    def _report_drops(self, *, last: bool = False) -> None:
        dropped, now = self._dropped, time.monotonic()
        if last:
            self._dispatcher.note_lost(_GRACE_S)
        if dropped > self._reported and (last or now - self._reported_at >= _REPORT_EVERY_S):
            self._reported, self._reported_at = dropped, now
            _log.warning(
                "%d events dropped so far: %d as the buffer was full or closed, %d not valid %s",
                dropped,
                self._buffer.dropped,
                self._dispatcher.broken,
                self._dispatcher.reason,
            )

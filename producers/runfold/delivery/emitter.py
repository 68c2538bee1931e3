"""The entry to delivery: accept events from any thread, and run the flusher.

Promise: an accepted event is where `flush` reports it, in its stream (at least once, in order for
each shard) or on disk; dropped events are counted, in the log and in Redis.
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
from runfold.throttled_log import ThrottledLog

from . import native_threads, process_hooks
from .buffer import Buffer, FlushMarker
from .dispatcher import ADOPT_INTERVAL_S, Dispatcher

LINGER_S: Final = 0.004
"""How long a frame collects events; the first one after an idle time is sent at once."""
IDLE_AFTER_S: Final = 1.0
"""How long the flusher polls after the last event before it sleeps: to wake it would cost each
event of a paced runner six times as much."""

CHILD_FLUSH_S: Final = 0.25
"""How long the end of a run may wait for Redis in a process that may end abruptly after it."""

_POLL_S: Final = 0.1
_CHECK_MAIN_S: Final = 1.0
"""How often the flusher of a forked child checks whether its main thread is alive."""
_CHECK_FLUSHER_S: Final = 0.5
"""How often a caller that waits for the flusher checks whether that is alive."""
_FULL_ROUND_EVENTS: Final = 1024
"""With so many events in the buffer, the next round starts at once."""
_GRACE_S: Final = 2.0
"""How long `flush` may exceed its time to write events to disk."""

_log = logging.getLogger("runfold")


class Flushed(Struct, frozen=True, kw_only=True):
    """Events of this process so far: in the stream, not safe yet, given up, and safe on disk."""

    sent: int
    pending: int
    dropped: int
    spooled: int = 0


class Emitter:
    """Accepts events. The flusher calls `send_heartbeats(is_connected)`, which emits the heartbeats
    that are due and returns the seconds until the next ones, or None."""

    def __init__(
        self,
        settings: Settings,
        redactor: Redactor,
        connect: Callable[[], redis.Redis],
        send_heartbeats: Callable[[bool], float | None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._redactor = redactor
        self._connect = connect
        self._send_heartbeats = send_heartbeats
        self._buffer = Buffer(
            settings.buffer_events,
            settings.buffer_bytes,
            self._on_put,
            settings.backpressure,
            settings.buffer_wait_s,
        )
        self.put: Final[Callable[[BufferedEvent], bool]] = self._buffer.put
        """Accept one event, or count it as dropped; waits only for room, never raises."""
        self.put_all: Final[Callable[[Sequence[BufferedEvent]], bool]] = self._buffer.put_all
        """Accept several events, or none of them."""
        self._reset()
        process_hooks.register(self)

    def _reset(self) -> None:
        self._buffer.reset()
        self._dispatcher = Dispatcher(self._settings, self._redactor, self._connect, self._buffer)
        self._lock = native_threads.RLock()  # reentrant: a signal handler may emit while it is held
        self._is_sending = False
        self._is_finalizing = False
        self._thread: native_threads.Thread | None = None
        self.ends_abruptly = process_hooks.ends_abruptly()
        self._logged_drops = 0
        self._drop_log = ThrottledLog()
        self._is_urgent = False
        self._is_stopping = False
        self._closed = False
        self._is_exiting = process_hooks.exit_began
        self._exit_budget_s = self._settings.exit_flush_s

    def flush(self, timeout_s: float) -> Flushed:
        """Send what was accepted before this call; return when it is safe or time is up."""
        self._wait_until_safe(timeout_s)
        return self.flushed

    def flush_or_spool(self, timeout_s: float) -> None:
        """Flush; then spool what is not sent, whatever state Redis is in."""
        if not self._wait_until_safe(timeout_s):
            self._dispatcher.spool_all(_GRACE_S)

    def _wait_until_safe(self, timeout_s: float) -> bool:
        """Return whether everything that was accepted before this call is safe."""
        self._enter_finalization()
        dispatcher = self._dispatcher
        if self._closed or (dispatcher.is_idle and not self._buffer.pending):
            return True
        if self._caller_sends:
            return False
        self._start()
        self._is_urgent = True
        deadline = time.monotonic() + timeout_s
        marker = self._buffer.put_marker()
        try:
            self._await_marker(marker, deadline)
            if not marker.reached.is_set() and self._thread is None:
                self._send_in_caller(marker, deadline)
            if not marker.reached.is_set() and dispatcher.sender.is_stuck():
                dispatcher.spool_all(_GRACE_S)
            return marker.reached.is_set()
        finally:
            self._buffer.withdraw(marker)

    @property
    def flushed(self) -> Flushed:
        """The counts of now, without waiting."""
        return Flushed(
            sent=self._dispatcher.sent,
            pending=self._buffer.pending + self._dispatcher.unsynced,
            dropped=self._dropped,
            spooled=self._dispatcher.spooled,
        )

    def close(self, timeout_s: float) -> Flushed:
        """Flush, spool what is left, and stop; later events are dropped and counted."""
        deadline = time.monotonic() + timeout_s
        self._wait_until_safe(timeout_s)
        self._buffer.close()
        if self.flushed.pending:
            self._dispatcher.spool_all(_GRACE_S)
        self._closed = True
        self._update_notify_on_put()
        thread = self._thread
        self.stop_when_sent()
        if thread is None:
            self._dispatcher.close()
        elif not thread.is_current():
            thread.join(max(0.1, deadline - time.monotonic()))
        self._log_drops(last=True)
        return self.flushed

    def stop_when_sent(self) -> None:
        """End the flusher once it has sent everything; no reference is left that could put more."""
        self._is_stopping = True
        self._buffer.wake()

    def after_fork(self) -> None:
        """In the child: start empty, with nothing shared; the parent sends its own events."""
        self._dispatcher.abandon()
        self._reset()

    def at_exit(self) -> None:
        """Send what is buffered, within `exit_flush_s` for all calls together; spool the rest."""
        if self._caller_sends:
            return
        if self._closed:
            self._log_drops(last=True)
            return
        self._enter_finalization()
        self._is_exiting = True
        self._buffer.may_wait = False
        self._update_notify_on_put()
        began = time.monotonic()
        self._wait_until_safe(self._exit_budget_s)
        if self.flushed.pending:
            self._dispatcher.spool_all(_GRACE_S)
        self._exit_budget_s = max(0.0, self._exit_budget_s - (time.monotonic() - began))
        spooled = self._dispatcher.spooled + self._dispatcher.unsynced
        if spooled:
            _log.warning("the process ends: %d events are in the spool, to be sent later", spooled)
        if self._buffer.pending:
            _log.warning(
                "the process ends: %d events could not be sent and are lost", self._buffer.pending
            )
        self._log_drops(last=True)

    @property
    def _dropped(self) -> int:
        return self._buffer.dropped + self._dispatcher.broken

    def _on_put(self) -> None:
        """Do what a `put` outside of the usual state needs."""
        if self._closed:
            self._log_drops()
        elif self._is_exiting:  # a later exit handler: no thread will send this event
            self.at_exit()
        elif self._thread is None:
            self._start()
        else:
            self._update_notify_on_put()
            self._buffer.wake()

    def _update_notify_on_put(self, *, flusher_sleeps: bool = False) -> None:
        """Decide whether `put` has to call `_on_put`."""
        with self._lock:
            self._buffer.notify_on_put = (
                flusher_sleeps or self._closed or self._is_exiting or self._thread is None
            )

    @property
    def _caller_sends(self) -> bool:
        """Whether the caller, such as a finalizer, has interrupted the code that sends."""
        thread = self._thread
        if thread is not None and thread.is_current():
            return True
        return self._is_sending and bool(self._lock._is_owned())

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._is_sending and not self._is_exiting:
                self._is_sending = True
                try:
                    self.ends_abruptly = process_hooks.ends_abruptly()
                    process_hooks.register_multiprocessing_exit()
                    self._thread = native_threads.Thread(self._run, "runfold")
                    self._thread.start()
                except RuntimeError:  # too late for threads: `flush` sends in its caller's
                    self._thread = None
                    return
                finally:
                    self._is_sending = False
            self._update_notify_on_put()

    def _enter_finalization(self) -> None:
        """At finalization all other threads are dead: replace the locks that they may hold."""
        if sys.is_finalizing() and not self._is_finalizing:
            self._is_finalizing = True
            self._lock = native_threads.RLock()
            self._is_sending = False
            self._thread = None
            self._dispatcher.enter_finalization()

    def _run(self) -> None:
        thread = self._buffer.flusher = self._thread
        try:
            self._run_until_stopped()
            self._dispatcher.close()
        finally:
            if self._thread is thread:
                self._thread = None
            self._update_notify_on_put()

    def _run_until_stopped(self) -> None:
        while True:
            try:
                timeout_s, may_sleep = self._run_once()
            except Exception:  # a bug must neither end the flusher nor make it spin
                _log.exception("sending failed and will be retried")
                timeout_s, may_sleep = 1.0, False
            if self._is_stopping and (self._closed or not self._buffer.pending):
                break
            if process_hooks.is_orphaned() and (
                not self._dispatcher.sender.is_connected or not self._buffer.pending
            ):
                self._dispatcher.spool_all(_GRACE_S)
                break
            if may_sleep:
                # Before the check for new events: a later `put` wakes the flusher.
                self._update_notify_on_put(flusher_sleeps=True)
            if not may_sleep or self._dispatcher.is_idle:
                self._buffer.wait(
                    min(timeout_s, _CHECK_MAIN_S) if process_hooks.generation else timeout_s
                )
            if may_sleep:
                self._update_notify_on_put()

    def _await_marker(self, marker: FlushMarker, deadline: float) -> None:
        """Return once the marker is reached, the flusher is dead, or time is up."""
        while (thread := self._thread) is not None and thread.is_alive():
            left_s = deadline - time.monotonic()
            # At the end of a process no other greenlet may run any more.
            cooperative = not self._is_exiting
            if left_s <= 0 or marker.reached.wait(
                min(left_s, _CHECK_FLUSHER_S), cooperative=cooperative
            ):
                return

    def _send_in_caller(self, marker: FlushMarker, deadline: float) -> None:
        """Do the flusher's work where no thread can start."""
        if self._is_finalizing and native_threads.is_cooperative():
            return  # gevent's sockets need other greenlets: only the spool is left
        if not self._dispatcher.sender.is_connected and time.monotonic() >= deadline:
            return
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return
        try:
            if self._is_sending:  # in a handler that interrupted this loop, which will go on
                return
            self._is_sending = True
            try:
                while True:
                    wait_s, _ = self._run_once()
                    left_s = deadline - time.monotonic()
                    if marker.reached.is_set() or left_s <= 0:
                        return
                    time.sleep(min(left_s, wait_s))
            finally:
                self._is_sending = False
        finally:
            self._lock.release()

    def _run_once(self) -> tuple[float, bool]:
        """Run one round; return the seconds to wait, and whether a `put` has to end the wait."""
        buffer, dispatcher = self._buffer, self._dispatcher
        now, self._is_urgent = self._is_urgent, False
        is_connected = dispatcher.sender.is_connected
        heartbeat_s = None if self._is_exiting else self._send_heartbeats(is_connected)
        dispatcher.run_once(now=now)
        self._log_drops()
        if dispatcher.is_idle:
            if time.monotonic() - dispatcher.last_taken_at > IDLE_AFTER_S:
                return min(ADOPT_INTERVAL_S, heartbeat_s or ADOPT_INTERVAL_S), True
            return min(LINGER_S, heartbeat_s or LINGER_S), False
        next_attempt_s = dispatcher.sender.next_attempt_s()
        if next_attempt_s is None:  # everything that was taken is sent
            return (0.0 if buffer.waiting >= _FULL_ROUND_EVENTS else LINGER_S), False
        return min(next_attempt_s, _POLL_S), False

    def _log_drops(self, *, last: bool = False) -> None:
        dropped = self._dropped
        if last:
            self._dispatcher.store_final_drop_count(_GRACE_S)
        if dropped > self._logged_drops and self._drop_log.warning(
            "%d events dropped so far: %d as the buffer was full or closed, %d not valid %s",
            dropped,
            self._buffer.dropped,
            self._dispatcher.broken,
            self._dispatcher.broken_reason,
            force=last,
        ):
            self._logged_drops = dropped

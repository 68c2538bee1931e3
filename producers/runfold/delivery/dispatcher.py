"""Move events from the buffer to a safe place: their streams, or else the spool.

Invariant: an event that was taken from the buffer is in a queue of the sender until Redis has it.
So the order of a shard is that of its queue, whether a frame is in memory or on disk.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import redis

from runfold.crash_points import crash_point
from runfold.errors import BrokenEvent
from runfold.serialization.redaction import Redactor
from runfold.settings import Settings, default_spool_dir
from runfold.spool.drop_counter import DropCounter, report_abandoned
from runfold.spool.segment import PendingFrame
from runfold.spool.spool import Spool, redis_digest

from .buffer import Buffer, FlushMarker
from .frame_packer import FramePacker
from .native_threads import OwnedLock
from .stream_sender import StreamSender

SPOOL_AFTER_S: Final = 1.0
"""How long events wait in memory during an outage before they are spooled, unless the buffer is
half full."""
ADOPT_INTERVAL_S: Final = 30.0
"""How often to look for spool files of dead processes."""

_SPOOL_LOCK_WAIT_S: Final = 1.0
"""How long a recording thread waits for the lock before it gives up spooling."""
_TAKE_EVENTS: Final = 8192

_log = logging.getLogger("runfold")


class Dispatcher:
    """One for each process: a forked child makes its own and abandons its parent's.

    Counters of this process's events: `sent`, `spooled` (on disk, synced), `unsynced` (on disk, but
    a loss of power could take them), `broken` (not valid, the last reason in `broken_reason`).
    Of dead processes' events: `adopted_sent`, `adopted_unreadable`, `adopted_drops` (reported).
    """

    def __init__(
        self,
        settings: Settings,
        redactor: Redactor,
        connect: Callable[[], redis.Redis],
        buffer: Buffer,
    ) -> None:
        self._buffer = buffer
        self._packer = FramePacker(redactor, settings.max_future_s)
        self._lock = OwnedLock()
        self._loads_in_outage = settings.backpressure != "drop_oldest"
        self._folder = Path(settings.spool_dir or default_spool_dir(os.environ))
        self._target = redis_digest(settings.redis_url)
        self._drops = DropCounter(self._folder, self._target)
        self._spool: Spool | None = None
        if settings.backpressure == "spool":
            self._spool = Spool(self._folder, settings.spool_bytes, self._target)
        self.sender = StreamSender(
            connect, settings.shards, self._reshard, self._read_spooled, self._lock
        )
        self._rewritten: list[PendingFrame] = []
        self._markers: list[FlushMarker] = []
        self._adopt_at = self._report_abandoned_at = 0.0
        self._reported_drops = 0
        self._is_exiting = False
        self.last_taken_at = float("-inf")
        self.sent = self.spooled = self.unsynced = self.broken = 0
        self.broken_reason = ""
        self.adopted_sent = self.adopted_unreadable = self.adopted_drops = 0
        buffer.overflow = self

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to send."""
        return not self._buffer.pending and not self.sender.has_queued

    def run_once(self, *, now: bool) -> None:
        """Take, pack, send, and spool what cannot be sent. `now` ignores backoffs."""
        with self._lock:
            sender = self.sender
            if self.is_idle and not sender.is_connected and not self._unreported_drops:
                return
            if sender.connect(now=now):
                self._report_abandoned()
                self._adopt()
                self._delete_rewritten()
                if not sender.can_send() and (self._loads_in_outage or not self.sender.is_stuck()):
                    self._load()
                self._settle(sender.send(now=now))
                unreported = self._unreported_drops
                if unreported and sender.report_dropped(unreported):
                    self._reported_drops += unreported
            self._store_drop_count()
            self._spool_stuck(0.0 if self._buffer.is_half_full else SPOOL_AFTER_S)
            self._signal_markers()

    def is_held_by_caller(self) -> bool:
        """Return whether the calling thread is inside one of the methods that move events."""
        return self._lock.is_held_by_caller()

    def is_in_outage(self) -> bool:
        """Return whether Redis, or one of its shards, has failed for `SPOOL_AFTER_S`."""
        return self.sender.is_stuck(SPOOL_AFTER_S)

    def spool_oldest(self, is_enough: Callable[[], bool]) -> bool:
        """Spool the oldest events until `is_enough()`; return its last answer. Any thread."""
        if self._spool is None or not self._lock.acquire(_SPOOL_LOCK_WAIT_S):
            return False
        try:
            return is_enough() or self._spool_until(is_enough)
        finally:
            self._lock.release()

    def spool_all(self, timeout_s: float) -> bool:
        """Spool and sync everything that is not in Redis; return whether it is safe. Any thread."""
        if self._spool is None or not self._lock.acquire(timeout_s):
            return False
        try:
            deadline = time.monotonic() + timeout_s
            self._spool_until(lambda: time.monotonic() > deadline)
            return self._sync()
        finally:
            self._lock.release()

    def store_final_drop_count(self, timeout_s: float) -> None:
        """At the end of a process: count what was dropped and what is lost with its memory."""
        self._is_exiting = True
        if not (self._unreported_drops or self._buffer.pending or self._drops.is_on_disk):
            return
        if self._lock.acquire(timeout_s):
            try:
                self._store_drop_count()
                self._drops.sync()
            finally:
                self._lock.release()

    def drain(self, deadline: float) -> None:
        """Send what dead processes left, until nothing is left or `time.monotonic()` is over."""
        with self._lock:
            while time.monotonic() < deadline and self.sender.connect():
                self._adopt_at = 0.0
                self._adopt()
                self._report_abandoned()
                self._delete_rewritten()
                if not self.sender.has_queued:
                    return
                self._settle(self.sender.send())
                if not self.sender.can_send():
                    time.sleep(min(self.sender.next_attempt_s() or 0.0, 0.1))

    def close(self) -> None:
        """Close the connection and the spool's files."""
        with self._lock:
            self.sender.close()
            self._store_drop_count()
            self._drops.close()
            if self._spool is not None:
                self._spool.close()

    def enter_finalization(self) -> None:
        """Replace the lock, which the dead flusher may hold."""
        self._lock = OwnedLock()
        self.sender.enter_finalization(self._lock)

    def abandon(self) -> None:
        """In a forked child: close the parent's files without changing them."""
        self._drops.abandon()
        if self._spool is not None:
            self._spool.abandon()

    def _load(self) -> None:
        """Pack events of the buffer and queue their frames."""
        items: Any = self._buffer.take(_TAKE_EVENTS)
        if not items:
            return
        self.last_taken_at = time.monotonic()
        if FlushMarker in set(map(type, items)):
            markers = [item for item in items if isinstance(item, FlushMarker)]
            items = [item for item in items if not isinstance(item, FlushMarker)]
            self._markers += markers
            self._buffer.release(len(markers), 0)
        try:
            frames, broken = self._packer.pack(items, self.sender.shards)
        except Exception as error:  # a bug: lose these events rather than all that follow
            _log.exception("%d events could not be packed", len(items))
            frames, broken = [], [(BrokenEvent(str(error)), item[4]) for item in items]
        self.sender.add(frames)
        for reason, size in broken:
            self._buffer.release(1, size)
            self.broken += 1
            self.broken_reason = str(reason)

    def _settle(self, frames: list[PendingFrame]) -> None:
        """Count and release frames that Redis has, or that cannot be read from disk."""
        if not frames:
            return
        from_spool = False
        for frame in frames:
            if frame.own and frame.settled:
                self.sent += frame.count
            elif frame.settled:
                self.adopted_sent += frame.count
            elif frame.own:
                self.broken += frame.count
                self.broken_reason = "the spool cannot be read"
            else:
                self.adopted_unreadable += frame.count
            frame.settled = True
            if frame.spooled:
                from_spool = True
                own = frame.count if frame.own else 0
                synced = min(own, self.spooled)  # how many is unknown: undercount `spooled`
                self.spooled -= synced
                self.unsynced -= own - synced
            else:
                self._buffer.release(frame.count, frame.size)
        crash_point("after_acknowledge")
        if from_spool and self._spool is not None:
            self._spool.record_progress()

    @property
    def _unreported_drops(self) -> int:
        """Events that were dropped here and that are not in Redis' count yet."""
        return self._buffer.dropped - self._reported_drops

    def _store_drop_count(self) -> None:
        lost = self._buffer.pending if self._is_exiting else 0
        self._drops.store(self._unreported_drops + lost)

    def _report_abandoned(self) -> None:
        """Report the drops of dead processes, after connecting and at each interval."""
        if time.monotonic() >= self._report_abandoned_at:
            self._report_abandoned_at = time.monotonic() + ADOPT_INTERVAL_S
            self.adopted_drops += report_abandoned(
                self._folder, self._target, self.sender.report_dropped
            )

    def _spool_stuck(self, after_s: float) -> None:
        """Spool what Redis has not accepted for so long, and in an outage all that follows."""
        if self._spool is None or not self.sender.is_stuck(after_s):
            return
        if self._spool_frames(self.sender.stuck_frames(after_s)):
            while not self.sender.is_connected and self._buffer.waiting:
                self._load()
                if not self._spool_frames(self.sender.queued_frames()):
                    break

    def _spool_until(self, is_enough: Callable[[], bool]) -> bool:
        """Spool events, oldest first, until `is_enough()`; return its last answer."""
        while self._spool_frames(self.sender.queued_frames()):
            if is_enough():
                return True
            if not self._buffer.waiting:
                return False
            self._load()
        return is_enough()

    def _spool_frames(self, frames: Iterable[PendingFrame]) -> bool:
        """Return whether all of the frames are on disk now."""
        assert self._spool is not None
        for frame in frames:
            if frame.segment is None:
                if not self._spool.append(frame):
                    return False
                if not frame.spooled:
                    self._buffer.release(frame.count, frame.size)
                    self.unsynced += frame.count
                    frame.spooled = True
        return True

    def _adopt(self) -> None:
        """Queue a segment of a dead process, at each interval, once nothing else is queued."""
        if self._spool is None or self.sender.has_queued or time.monotonic() < self._adopt_at:
            return
        frames = self._spool.adopt()
        for frame in frames:
            frame.spooled = True
        if frames:
            _log.info("sending %d events of an earlier process", sum(one.count for one in frames))
        else:
            self._adopt_at = time.monotonic() + ADOPT_INTERVAL_S
        self.sender.add(frames)

    def _read_spooled(self, frame: PendingFrame) -> bytes | None:
        return None if self._spool is None else self._spool.read(frame)

    def _reshard(self, frame: PendingFrame, shards: int) -> list[PendingFrame]:
        """Split a frame. Parts of a spooled one go to the spool: they may not fit into memory."""
        packed = frame.packed or self._read_spooled(frame)
        if packed is None:
            self._settle([frame])
            return []
        parts = self._packer.reshard(frame, packed, shards)
        if frame.segment is not None and self._spool is not None:
            for part in parts:
                part.spooled = True
            if all(self._spool.append(part) for part in parts):
                self._rewritten.append(frame)
        return parts

    def _delete_rewritten(self) -> None:
        """Delete the old records of resharded frames, together, once the new ones are synced.

        A death before that repeats events, but loses none that `flush` has reported as spooled.
        """
        if self._rewritten and self._spool is not None and self._spool.sync():
            for frame in self._rewritten:
                frame.settled = True
            self._rewritten.clear()
            self._spool.record_progress()

    def _signal_markers(self) -> None:
        """Set each marker whose frames are sent or, in an outage, safe on disk."""
        if not self._markers:
            return
        is_stuck = self._spool is not None and self.sender.is_stuck(SPOOL_AFTER_S)
        for marker in list(self._markers):
            if marker.epoch != self.sender.epoch:  # new, or its frames were resharded
                marker.epoch = self.sender.epoch
                marker.frames = self.sender.queued_frames()
            left = [frame for frame in marker.frames if not frame.settled]
            is_safe = is_stuck and all(frame.segment is not None for frame in left)
            if marker.reached.is_set() or not left or (is_safe and self._sync()):
                self._markers.remove(marker)
                marker.reached.set()

    def _sync(self) -> bool:
        """Return whether the spool survives a loss of power; only then events count as spooled."""
        self._drops.sync()
        if self._spool is None or not self._spool.sync():
            return False
        self.spooled += self.unsynced  # before the other, as another thread may read their sum
        self.unsynced = 0
        return True

"""From the buffer to where events are safe: their streams, or else the spool.

Invariant: whatever was taken from the buffer is in a lane of the shipper until it is in Redis, so
the order of a shard is that of its lane, wherever the frames lie. All of this happens under one
lock, the desk, which is let go of only while Redis is waited for: so a thread that must be sure
that events are safe (`flush`, the end of a process) can put them into the spool although the
flusher hangs in a connection.
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
from runfold.spool.drop_counter import DropCounter, report_left
from runfold.spool.pending_frame import PendingFrame
from runfold.spool.spool import Spool, target_of

from .buffer import Buffer, FlushMarker
from .frame_packer import FramePacker
from .native_threads import OwnedLock
from .stream_sender import StreamSender

SPOOL_AFTER_S: Final = 1.0
"""So long events wait in memory for Redis to come back; sooner if the buffer is half full."""
ADOPT_EVERY_S: Final = 30.0
"""How often to look for what dead processes have left."""

_SPILL_WAIT_S: Final = 1.0
"""So long a runner waits for the flusher to let go of the desk."""
_TAKE: Final = 8192

_log = logging.getLogger("runfold")


class Dispatcher:
    """One for each process: a forked child makes its own and abandons its parent's."""

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
        self._may_wait = settings.backpressure != "drop_oldest"
        self._folder = Path(settings.spool_dir or default_spool_dir(os.environ))
        self._target = target_of(settings.redis_url)
        self._drops = DropCounter(self._folder, self._target)
        self._spool: Spool | None = None
        if settings.backpressure == "spool":
            self._spool = Spool(self._folder, settings.spool_bytes, self._target)
        self._shipper = StreamSender(connect, settings.shards, self._split, self._read, self._lock)
        self._rewritten: list[PendingFrame] = []
        self._barriers: list[FlushMarker] = []
        self._adopt_at = self._report_left_at = 0.0
        self.came_at = float("-inf")
        self.sent = self.resent = self.unreadable = 0
        self.spooled = 0
        self.unsynced = 0
        """Written to the spool, but a loss of power could still take them."""
        self.broken = 0
        self._told_dropped = 0
        self._is_ending = False
        self.reported = 0
        """Events that dead processes dropped, and of which Redis knows now."""
        self.reason = ""
        buffer.outlet = self

    @property
    def failing(self) -> bool:
        """Whether the last attempt to connect or to send did not work."""
        return self._shipper.failing

    @property
    def stuck(self) -> bool:
        """Whether something has not worked and is not known to work again."""
        return self._shipper.is_stuck(0)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._buffer.pending and not self._shipper.waiting

    def left_s(self) -> float | None:
        """How long until a round can do something; `None`: nothing is queued."""
        return self._shipper.left_s()

    def work(self, *, now: bool) -> None:
        """One round: take, send, keep what cannot be sent; `now`: without regard to pauses."""
        with self._lock:
            shipper = self._shipper
            if self.idle and shipper.failing and not self._untold:
                return
            if shipper.prepare(now=now):
                self._report_left()
                self._adopt()
                self._drop_rewritten()
                if not shipper.has_some_to_send() and (self._may_wait or not self.stuck):
                    self._load()
                self._settle(shipper.send(now=now))
                self._tell_dropped()
            self._note_dropped()
            self._keep(0.0 if self._buffer.is_half_full else SPOOL_AFTER_S)
            self._reach_barriers()

    def is_mine(self) -> bool:
        """Whether the calling thread is at the desk."""
        return self._lock.is_mine()

    def is_in_outage(self) -> bool:
        """Whether Redis, or one of its shards, has taken nothing for `SPOOL_AFTER_S`."""
        return self._shipper.is_stuck(SPOOL_AFTER_S)

    def spill(self, is_enough: Callable[[], bool]) -> bool:
        """From any thread: put the oldest events into the spool until it is enough."""
        if self._spool is None or not self._lock.acquire(_SPILL_WAIT_S):
            return False
        try:
            return is_enough() or self._keep_until(is_enough)
        finally:
            self._lock.release()

    def keep_all(self, timeout_s: float) -> bool:
        """From any thread: put everything that is not in Redis into the spool, durably."""
        if self._spool is None or not self._lock.acquire(timeout_s):
            return False
        try:
            deadline = time.monotonic() + timeout_s
            self._keep_until(lambda: time.monotonic() > deadline)
            return self._sync()
        finally:
            self._lock.release()

    def note_lost(self, timeout_s: float) -> None:
        """At the end of a process: note what was dropped and what is lost with its memory."""
        self._is_ending = True
        if not (self._untold or self._buffer.pending or self._drops.is_on_disk):
            return
        if self._lock.acquire(timeout_s):
            try:
                self._note_dropped()
                self._drops.sync()
            finally:
                self._lock.release()

    def drain(self, deadline: float) -> None:
        """Send what dead processes have left; returns when nothing is left, or at the deadline."""
        with self._lock:
            while time.monotonic() < deadline and self._shipper.prepare():
                self._adopt_at = 0.0
                self._adopt()
                self._report_left()
                self._drop_rewritten()
                if not self._shipper.waiting:
                    return
                self._settle(self._shipper.send())
                if not self._shipper.has_some_to_send():
                    time.sleep(min(self._shipper.left_s() or 0.0, 0.1))

    def close(self) -> None:
        """Let go of the connection and of the spool."""
        with self._lock:
            self._shipper.close()
            self._note_dropped()
            self._drops.close()
            if self._spool is not None:
                self._spool.close()

    def take_over(self) -> None:
        """At finalization, when the thread that worked here is dead: whatever it holds is free."""
        self._lock = OwnedLock()
        self._shipper.take_over(self._lock)

    def abandon(self) -> None:
        """In a forked child: what the parent has is the parent's."""
        self._drops.abandon()
        if self._spool is not None:
            self._spool.abandon()

    def _load(self) -> None:
        """From the buffer into the lanes."""
        items: Any = self._buffer.take(_TAKE)
        if not items:
            return
        self.came_at = time.monotonic()
        if FlushMarker in set(map(type, items)):
            barriers = [item for item in items if isinstance(item, FlushMarker)]
            items = [item for item in items if not isinstance(item, FlushMarker)]
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
            self.broken += 1
            self.reason = str(reason)

    def _settle(self, parcels: list[PendingFrame]) -> None:
        """These are in Redis, or lost on disk."""
        if not parcels:
            return
        from_spool = False
        for parcel in parcels:
            if parcel.own and parcel.settled:
                self.sent += parcel.count
            elif parcel.settled:
                self.resent += parcel.count
            elif parcel.own:
                self.broken += parcel.count
                self.reason = "the spool cannot be read"
            else:
                self.unreadable += parcel.count
            parcel.settled = True
            if parcel.spooled:
                from_spool = True
                self._leave_spool(parcel.count if parcel.own else 0)
            else:
                self._buffer.release(parcel.count, parcel.size)
        crash_point("after_acknowledge")
        if from_spool and self._spool is not None:
            self._spool.note_sent()

    @property
    def _untold(self) -> int:
        """Events that were dropped here and of which Redis does not know."""
        return self._buffer.dropped - self._told_dropped

    def _tell_dropped(self) -> None:
        """An operator has to know of what the runners' memory and spool could not take."""
        untold = self._untold
        if untold and self._shipper.tell_dropped(untold):
            self._told_dropped += untold

    def _note_dropped(self) -> None:
        lost = self._buffer.pending if self._is_ending else 0
        self._drops.note(self._untold + lost)

    def _report_left(self) -> None:
        """Report what dead processes dropped, when first connected and every half minute."""
        if time.monotonic() >= self._report_left_at:
            self._report_left_at = time.monotonic() + ADOPT_EVERY_S
            self.reported += report_left(self._folder, self._target, self._shipper.tell_dropped)

    def _keep(self, after_s: float) -> None:
        """Put into the spool what Redis has not taken for so long, and what comes behind it."""
        if self._spool is None or not self._shipper.is_stuck(after_s):
            return
        if self._keep_parcels(self._shipper.stuck(after_s)):
            while self._shipper.failing and self._buffer.waiting:
                self._load()
                if not self._keep_parcels(self._shipper.outstanding()):
                    break

    def _keep_until(self, is_enough: Callable[[], bool]) -> bool:
        """Put events into the spool, oldest first; returns whether it is enough."""
        while self._keep_parcels(self._shipper.outstanding()):
            if is_enough():
                return True
            if not self._buffer.waiting:
                return False
            self._load()
        return is_enough()

    def _keep_parcels(self, parcels: Iterable[PendingFrame]) -> bool:
        """Whether all of them are on disk."""
        assert self._spool is not None
        for parcel in parcels:
            if parcel.segment is None:
                if not self._spool.keep(parcel):
                    return False
                if not parcel.spooled:
                    self._buffer.release(parcel.count, parcel.size)
                    self.unsynced += parcel.count
                    parcel.spooled = True
        return True

    def _adopt(self) -> None:
        """What dead processes have left is sent when there is nothing else on its way."""
        if self._spool is None or self._shipper.waiting or time.monotonic() < self._adopt_at:
            return
        parcels = self._spool.adopt()
        for parcel in parcels:
            parcel.spooled = True
        if parcels:
            _log.info("sending %d events of an earlier process", sum(one.count for one in parcels))
        else:
            self._adopt_at = time.monotonic() + ADOPT_EVERY_S
        self._shipper.add(parcels)

    def _read(self, parcel: PendingFrame) -> bytes | None:
        return None if self._spool is None else self._spool.read(parcel)

    def _split(self, parcel: PendingFrame, shards: int) -> list[PendingFrame]:
        """A parcel of the spool is written anew: that many can be more than memory holds."""
        frame = parcel.frame or self._read(parcel)
        if frame is None:
            self._settle([parcel])
            return []
        parts = self._packer.split(parcel, frame, shards)
        if parcel.segment is not None and self._spool is not None:
            for part in parts:
                part.spooled = True
            if all(self._spool.keep(part) for part in parts):
                self._rewritten.append(parcel)
        return parts

    def _drop_rewritten(self) -> None:
        """The old records of parcels go together and last: dying before that repeats events, but
        nothing that `flush` has called safe is lost, and none comes before an older one."""
        if self._rewritten and self._spool is not None and self._spool.sync():
            for parcel in self._rewritten:
                parcel.settled = True
            self._rewritten.clear()
            self._spool.note_sent()

    def _reach_barriers(self) -> None:
        if not self._barriers:
            return
        stuck = self._spool is not None and self._shipper.is_stuck(SPOOL_AFTER_S)
        for barrier in list(self._barriers):
            if barrier.epoch != self._shipper.epoch:  # new, or the number of shards has changed
                barrier.epoch = self._shipper.epoch
                barrier.parcels = self._shipper.outstanding()
            left = [parcel for parcel in barrier.parcels if not parcel.settled]
            is_safe = stuck and all(parcel.segment is not None for parcel in left)
            if barrier.reached.is_set() or not left or (is_safe and self._sync()):
                self._barriers.remove(barrier)
                barrier.reached.set()

    def _sync(self) -> bool:
        """Whether the spool outlives a loss of power; only then may anybody count on it."""
        self._drops.sync()
        if self._spool is None or not self._spool.sync():
            return False
        self.spooled += self.unsynced  # first, as another thread may add both up meanwhile
        self.unsynced = 0
        return True

    def _leave_spool(self, count: int) -> None:
        """Which of them were synced is not known: rather too few are called safe than too many."""
        synced = min(count, self.spooled)
        self.spooled -= synced
        self.unsynced -= count - synced

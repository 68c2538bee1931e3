"""The bounded memory between the runners' threads and the flusher.

Invariant: an item that `put` accepted is taken by the flusher exactly once, in the order in
which `put` was called, and counts against the bounds until the flusher releases it. No lock is
taken on the way in, so that a signal handler, a finalizer or a fork in the middle of `put`
cannot leave anything locked: appending to a deque is atomic. The number of bytes is added up
without one too; should that ever go wrong, it is put right when the buffer is next empty.

A full buffer sets the pace: its caller sleeps, without any lock, until the flusher has made room.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat, starmap
from typing import Final, Protocol

from runfold.serialization.event_cleanup import BufferedEvent
from runfold.settings import Backpressure
from runfold.spool.pending_frame import PendingFrame

from .native_threads import Empty, RLock, Signal, SimpleQueue, Thread

_LOOK_AGAIN_S: Final = 0.002
_NO_FLUSHER_S: Final = 5.0
"""So long `block` waits without a thread that could make room, at the end of an interpreter."""


class FlushMarker:
    """A place in the buffer: reached once everything before it is settled."""

    def __init__(self) -> None:
        self.reached = Signal()
        self.parcels: list[PendingFrame] = []
        self.epoch = -1


class Outlet(Protocol):
    """Moves items from the buffer to where they are safe."""

    def is_mine(self) -> bool:
        """Whether the calling thread is moving items right now, and so cannot wait for itself."""

    def is_in_outage(self) -> bool:
        """Whether Redis has taken nothing for a while."""

    def spill(self, is_enough: Callable[[], bool]) -> bool:
        """Move the oldest items to disk in the calling thread; returns whether it is enough."""


class Buffer:
    """`alarm` is called by `put` while `alert` is set: the flusher sleeps or does not exist.

    When it is full, callers wait for room, for at most `wait_s` seconds in all; with
    `when_full="block"` without a bound, as long as there is a flusher. After a wait in which
    nothing moved, later callers do not wait until something moves again. An item that finds no
    room is accepted once `outlet` has put older ones on disk ("spool") or the oldest is given up
    ("drop_oldest"), or else it is dropped and counted.
    """

    def __init__(
        self,
        max_events: int,
        max_bytes: int,
        alarm: Callable[[], None],
        when_full: Backpressure = "spool",
        wait_s: float = 0.0,
    ) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._alarm = alarm
        self._when_full = when_full
        self._wait_s = wait_s
        self.outlet: Outlet | None = None
        self.empty()

    def empty(self) -> None:
        """As new; what is in it is forgotten, not released."""
        self._items: deque[BufferedEvent | FlushMarker] = deque()
        self._taken = 0
        self._bytes_in = 0
        self._events_room = self._max_events
        self._bytes_room = self._max_bytes
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._taking = RLock()
        self._releases = 0
        self._stalled_at = self._refused_at = -1
        self.flusher: Thread | None = None
        self.alert = self.patient = True
        self.dropped = 0

    def put(self, item: BufferedEvent) -> bool:
        """Accept an item; False when it had to be dropped."""
        items = self._items
        bytes_in = self._bytes_in + item[4]
        if len(items) >= self._events_room or bytes_in > self._bytes_room:
            return self._put_into_full((item,), item[4])
        self._bytes_in = bytes_in
        items.append(item)
        if self.alert:
            self._alarm()
        return True

    def put_all(self, items: Sequence[BufferedEvent]) -> bool:
        """Accept all items or none; more than there is ever room for go into an empty buffer."""
        size = sum(item[4] for item in items)
        bytes_in = self._bytes_in + size
        if len(self._items) + len(items) > self._events_room or bytes_in > self._bytes_room:
            return self._put_into_full(items, size)
        self._bytes_in = bytes_in
        self._items.extend(items)
        if self.alert:
            self._alarm()
        return True

    def _put_into_full(self, items: Sequence[BufferedEvent], size: int) -> bool:
        accepted = False
        try:
            accepted = self._find_room(len(items), size)
        finally:  # a signal handler may raise out of the wait
            if not accepted:
                self.dropped += len(items)
        if accepted:
            self._bytes_in += size
            self._items.extend(items)
        if self.alert:
            self._alarm()
        return accepted

    def _find_room(self, count: int, size: int) -> bool:
        """Whether items may go in now, if need be beyond the bounds."""
        if self._max_events > 0 and self._moves_items():
            return True  # heartbeats, finalizers: few, and nothing moves while they wait
        if self._wait_for_room(count, size):
            return True
        if self._max_events <= 0:
            return False
        if self._when_full == "spool":
            return self._spill(count, size)
        return self._when_full == "drop_oldest" and self._drop_oldest(count, size)

    def _moves_items(self) -> bool:
        if self.flusher is not None and self.flusher.is_current():
            return True
        return self.outlet is not None and self.outlet.is_mine()

    def _has_room(self, count: int, size: int) -> bool:
        too_many = len(self._items) + count > self._events_room
        if not too_many and self._bytes_in + size <= self._bytes_room:
            return True
        return self._max_events > 0 and not self.pending

    def _wait_for_room(self, count: int, size: int) -> bool:
        since, releases = time.monotonic(), self._releases
        self.ring()
        while not self._has_room(count, size):
            if not self._may_wait(since, releases):
                return False
            if self.alert:
                self._alarm()
            time.sleep(_LOOK_AGAIN_S)
        return True

    def _may_wait(self, since: float, releases: int) -> bool:
        if not self.patient or self._max_events <= 0:
            return False
        waited_s = time.monotonic() - since
        flusher, outlet = self.flusher, self.outlet
        if self._when_full == "block":
            return (flusher is not None and flusher.is_alive()) or waited_s < _NO_FLUSHER_S
        if self._when_full == "drop_oldest" and outlet is not None and outlet.is_in_outage():
            return False
        if self._stalled_at == self._releases:
            return False
        if waited_s < self._wait_s:
            return True
        if releases == self._releases:
            self._stalled_at = releases
        return False

    def _spill(self, count: int, size: int) -> bool:
        if self.outlet is None or self._refused_at == self._releases:
            return False
        stalled = self._stalled_at == self._releases
        spilled = self.outlet.spill(lambda: self._has_room(count, size))
        if stalled:  # what this caller has moved itself is no reason to wait for the flusher
            self._stalled_at = self._releases
        if not spilled:
            self._refused_at = self._releases
        return spilled

    def _drop_oldest(self, count: int, size: int) -> bool:
        if count > self._max_events or size > self._max_bytes:
            return False
        while not self._has_room(count, size):
            with self._taking:
                try:
                    oldest = next(item for item in self._items if not isinstance(item, FlushMarker))
                    self._items.remove(oldest)
                except StopIteration:
                    return False
                except (RuntimeError, IndexError, ValueError):  # another put came in between
                    continue
                self._bytes_room += oldest[4]
                self.dropped += 1
        return True

    @property
    def is_half_full(self) -> bool:
        """Time to do something about it."""
        many = 2 * self.pending > self._max_events
        return many or 2 * (self._bytes_in + self._max_bytes - self._bytes_room) > self._max_bytes

    def close(self) -> None:
        """From now on there is no room."""
        self.patient = False
        self._max_events = self._events_room = -1

    def put_barrier(self) -> FlushMarker:
        """Ask for news of everything that is in the buffer now; wakes the flusher."""
        barrier = FlushMarker()
        self._items.append(barrier)
        self.ring()
        return barrier

    def withdraw(self, barrier: FlushMarker) -> None:
        """Nobody waits for it any longer."""
        barrier.reached.set()
        with self._taking:
            try:
                self._items.remove(barrier)
            except (ValueError, IndexError):  # taken already, or another thread puts right now
                return

    @property
    def pending(self) -> int:
        """Accepted and not yet released; a barrier in the buffer counts as one."""
        return len(self._items) + self._taken

    @property
    def waiting(self) -> int:
        """Accepted and not yet taken."""
        return len(self._items)

    def ring(self) -> None:
        """Wake the flusher, whatever it waits for."""
        self._bell.put(None)

    # From here on: for the flusher alone.

    def take(self, most: int) -> list[BufferedEvent | FlushMarker]:
        """The oldest items; they stay within the bounds until they are released."""
        taken: list[BufferedEvent | FlushMarker] = []
        with self._taking:
            count = min(most, len(self._items))
            self._take(count)  # before they leave the deque, so that `pending` never misses them
            try:
                taken.extend(starmap(self._items.popleft, repeat((), count)))
            finally:
                self._take(len(taken) - count)
        return taken

    def release(self, events: int, size: int) -> None:
        """These are in the stream, or given up."""
        with self._taking:  # `_drop_oldest` adds to the room too
            self._take(-events)
            self._bytes_room += size
            self._releases += 1
            if not self._taken and not self._items:
                self._bytes_room = self._bytes_in + self._max_bytes

    def _take(self, count: int) -> None:
        self._taken += count
        self._events_room = self._max_events - self._taken

    def wait(self, timeout_s: float | None) -> None:
        """Until the bell rings, or time is up."""
        try:
            self._bell.get(timeout=timeout_s)
            while True:
                self._bell.get_nowait()
        except Empty:
            return

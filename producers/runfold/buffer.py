"""The bounded memory between the runners' threads and the flusher.

Invariant: an item that `put` accepted is taken by the flusher exactly once, in the order in
which `put` was called, and counts against the bounds until the flusher releases it. No lock is
taken on the way in, so that a signal handler, a finalizer or a fork in the middle of `put`
cannot leave anything locked: appending to a deque is atomic. The number of bytes is added up
without one too; should that ever go wrong, it is put right when the buffer is next empty.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat, starmap
from queue import Empty, SimpleQueue
from threading import Event as Signal
from threading import RLock, Thread, current_thread
from typing import Final

from .parcels import Parcel
from .sealing import Unsealed
from .settings import Backpressure

_LOOK_AGAIN_S: Final = 0.002


class Barrier:
    """A place in the buffer: reached once everything before it is settled."""

    def __init__(self) -> None:
        self.reached = Signal()
        self.parcels: list[Parcel] = []
        self.epoch = -1


class Buffer:
    """`alarm` is called by `put` while `alert` is set: nobody is there to take what was put.

    When it is full, the newest are refused and counted, since what is already accepted was
    promised; `when_full="block"` waits for room instead, as long as `patient` is set, and
    `when_full="drop_oldest"` gives up the oldest that are not on their way yet.
    """

    def __init__(
        self,
        max_events: int,
        max_bytes: int,
        alarm: Callable[[], None],
        when_full: Backpressure = "spool",
    ) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._alarm = alarm
        self._when_full = when_full
        self.empty()

    def empty(self) -> None:
        """As new; what is in it is forgotten, not released."""
        self._items: deque[Unsealed | Barrier] = deque()
        self._taken = 0
        self._bytes_in = 0
        self._events_room = self._max_events
        self._bytes_room = self._max_bytes
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._taking = RLock()
        self.flusher: Thread | None = None
        self.alert = self.patient = True
        self.dropped = 0

    def put(self, item: Unsealed) -> bool:
        """Accept an item, or say that there is no room."""
        items = self._items
        bytes_in = self._bytes_in + item[4]
        if len(items) >= self._events_room or bytes_in > self._bytes_room:
            return self._make_room(1, item[4]) and self.put(item)
        self._bytes_in = bytes_in
        items.append(item)
        if self.alert:
            self._alarm()
        return True

    def put_all(self, items: Sequence[Unsealed]) -> bool:
        """All of them or, when there is no room, none."""
        size = sum(item[4] for item in items)
        bytes_in = self._bytes_in + size
        if len(self._items) + len(items) > self._events_room or bytes_in > self._bytes_room:
            return self._make_room(len(items), size) and self.put_all(items)
        self._bytes_in = bytes_in
        self._items.extend(items)
        if self.alert:
            self._alarm()
        return True

    def _make_room(self, count: int, size: int) -> bool:
        """Whether it is worth trying again; if not, they are counted as dropped."""
        if count <= self._max_events and size <= self._max_bytes:
            if self._when_full == "block" and self._wait_for_room(count, size):
                return True
            if self._when_full == "drop_oldest" and self._drop_oldest(count, size):
                return True
        self.dropped += count
        if self.alert:
            self._alarm()
        return False

    def _lacks_room(self, count: int, size: int) -> bool:
        too_many = len(self._items) + count > self._events_room
        return too_many or self._bytes_in + size > self._bytes_room

    def _wait_for_room(self, count: int, size: int) -> bool:
        while self._lacks_room(count, size):
            if not self.patient or current_thread() is self.flusher:
                return False
            if self.alert:
                self._alarm()
            self.ring()
            time.sleep(_LOOK_AGAIN_S)
        return True

    def _drop_oldest(self, count: int, size: int) -> bool:
        while self._lacks_room(count, size):
            with self._taking:
                try:
                    oldest = next(item for item in self._items if not isinstance(item, Barrier))
                    self._items.remove(oldest)
                except StopIteration:
                    return False
                except (RuntimeError, IndexError):  # another thread puts right now
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

    def put_barrier(self) -> Barrier:
        """Ask for news of everything that is in the buffer now; wakes the flusher."""
        barrier = Barrier()
        self._items.append(barrier)
        self.ring()
        return barrier

    def withdraw(self, barrier: Barrier) -> None:
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

    def take(self, most: int) -> list[Unsealed | Barrier]:
        """The oldest items; they stay within the bounds until they are released."""
        taken: list[Unsealed | Barrier] = []
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
        self._take(-events)
        self._bytes_room += size
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

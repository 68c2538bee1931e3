"""The bounded queue between the recording threads and the flusher.

Invariant: the flusher takes each accepted item exactly once, in the order of the calls to `put`.
An item counts against the bounds until the flusher releases it. `put` takes no lock, so a signal
handler, a finalizer or a fork in the middle of it cannot leave one held: appending to a deque is
atomic, and an error in the sum of bytes lasts until the buffer is next empty.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat, starmap
from typing import Final, Protocol

from runfold.serialization.event_cleanup import BufferedEvent
from runfold.settings import Backpressure
from runfold.spool.segment import PendingFrame

from .native_threads import Empty, OneShotEvent, RLock, SimpleQueue, Thread

_POLL_S: Final = 0.002
_NO_FLUSHER_S: Final = 5.0
"""How long `block` waits when no flusher is alive, as at the end of the interpreter."""


class FlushMarker:
    """A position in the buffer: `reached` is set once every event before it is sent or spooled.

    `frames` are the frames to wait for; `epoch` is the sender's epoch in which they were listed.
    """

    def __init__(self) -> None:
        self.reached = OneShotEvent()
        self.frames: list[PendingFrame] = []
        self.epoch = -1


class OverflowHandler(Protocol):
    """Makes room in a full buffer."""

    def is_held_by_caller(self) -> bool:
        """Return whether the calling thread moves items itself, so that it must not wait."""

    def is_in_outage(self) -> bool:
        """Return whether Redis has accepted nothing for a while."""

    def spool_oldest(self, is_enough: Callable[[], bool]) -> bool:
        """Write the oldest items to disk until `is_enough()`; return its last answer."""


class Buffer:
    """`put` calls `on_put` while `notify_on_put` is set: the flusher sleeps or does not exist.

    In a full buffer, a call waits at most `wait_s` seconds for room, with `when_full="block"` as
    long as the flusher lives. After a wait in which nothing moved, later calls do not wait until
    something moves again. Then `overflow` writes older items to disk ("spool"), or the oldest are
    dropped ("drop_oldest"). If there is still no room, the new item is dropped and counted.
    """

    def __init__(
        self,
        max_events: int,
        max_bytes: int,
        on_put: Callable[[], None],
        when_full: Backpressure = "spool",
        wait_s: float = 0.0,
    ) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._on_put = on_put
        self._when_full = when_full
        self._wait_s = wait_s
        self.overflow: OverflowHandler | None = None
        self.reset()

    def reset(self) -> None:
        """Start anew, in a forked child: forget all items without releasing them."""
        self._items: deque[BufferedEvent | FlushMarker] = deque()
        self._taken = 0
        self._bytes_in = 0
        self._events_room = self._max_events
        self._bytes_room = self._max_bytes
        self._wakeups: SimpleQueue[None] = SimpleQueue()
        self._take_lock = RLock()
        self._releases = 0
        self._stalled_at = self._refused_at = -1
        self.flusher: Thread | None = None
        self.notify_on_put = self.may_wait = True
        self.dropped = 0

    def put(self, item: BufferedEvent) -> bool:
        """Accept an item; return False if it was dropped."""
        items = self._items
        bytes_in = self._bytes_in + item[4]
        if len(items) >= self._events_room or bytes_in > self._bytes_room:
            return self._put_when_full((item,), item[4])
        self._bytes_in = bytes_in
        items.append(item)
        if self.notify_on_put:
            self._on_put()
        return True

    def put_all(self, items: Sequence[BufferedEvent]) -> bool:
        """Accept all items or none. More than the bounds allow are accepted by an empty buffer."""
        size = sum(item[4] for item in items)
        bytes_in = self._bytes_in + size
        if len(self._items) + len(items) > self._events_room or bytes_in > self._bytes_room:
            return self._put_when_full(items, size)
        self._bytes_in = bytes_in
        self._items.extend(items)
        if self.notify_on_put:
            self._on_put()
        return True

    def _put_when_full(self, items: Sequence[BufferedEvent], size: int) -> bool:
        accepted = False
        try:
            accepted = self._make_room(len(items), size)
        finally:  # a signal handler may raise during the wait
            if not accepted:
                self.dropped += len(items)
        if accepted:
            self._bytes_in += size
            self._items.extend(items)
        if self.notify_on_put:
            self._on_put()
        return accepted

    def _make_room(self, count: int, size: int) -> bool:
        """Return whether the items may be added now, even beyond the bounds."""
        flusher, overflow = self.flusher, self.overflow
        caller_moves_events = (flusher is not None and flusher.is_current()) or (
            overflow is not None and overflow.is_held_by_caller()
        )
        if self._max_events > 0 and caller_moves_events:
            return True  # heartbeats and finalizers: few, and waiting for itself would never end
        if self._wait_for_room(count, size):
            return True
        if self._max_events <= 0:
            return False
        if self._when_full == "spool":
            return self._spool_oldest(count, size)
        return self._when_full == "drop_oldest" and self._drop_oldest(count, size)

    def _has_room(self, count: int, size: int) -> bool:
        fits = len(self._items) + count <= self._events_room
        fits = fits and self._bytes_in + size <= self._bytes_room
        return fits or (self._max_events > 0 and not self.pending)

    def _wait_for_room(self, count: int, size: int) -> bool:
        since, releases = time.monotonic(), self._releases
        self.wake()
        while not self._has_room(count, size):
            if not self._may_wait(since, releases):
                return False
            if self.notify_on_put:
                self._on_put()
            time.sleep(_POLL_S)
        return True

    def _may_wait(self, since: float, releases: int) -> bool:
        if not self.may_wait or self._max_events <= 0:
            return False
        waited_s = time.monotonic() - since
        flusher, overflow = self.flusher, self.overflow
        if self._when_full == "block":
            return (flusher is not None and flusher.is_alive()) or waited_s < _NO_FLUSHER_S
        if self._when_full == "drop_oldest" and overflow is not None and overflow.is_in_outage():
            return False
        if self._stalled_at == self._releases:
            return False
        if waited_s < self._wait_s:
            return True
        if releases == self._releases:
            self._stalled_at = releases
        return False

    def _spool_oldest(self, count: int, size: int) -> bool:
        if self.overflow is None or self._refused_at == self._releases:
            return False
        stalled = self._stalled_at == self._releases
        spilled = self.overflow.spool_oldest(lambda: self._has_room(count, size))
        if stalled:  # this caller moved the items: the flusher still stands still
            self._stalled_at = self._releases
        if not spilled:
            self._refused_at = self._releases
        return spilled

    def _drop_oldest(self, count: int, size: int) -> bool:
        if count > self._max_events or size > self._max_bytes:
            return False
        while not self._has_room(count, size):
            with self._take_lock:
                try:
                    oldest = next(item for item in self._items if not isinstance(item, FlushMarker))
                    self._items.remove(oldest)
                except StopIteration:
                    return False
                except (RuntimeError, IndexError, ValueError):  # a concurrent `put` or `take`
                    continue
                self._bytes_room += oldest[4]
                self.dropped += 1
        return True

    @property
    def is_half_full(self) -> bool:
        """Whether half of the events or bytes that the buffer may hold are in use."""
        many = 2 * self.pending > self._max_events
        return many or 2 * (self._bytes_in + self._max_bytes - self._bytes_room) > self._max_bytes

    def close(self) -> None:
        """Refuse all further items."""
        self.may_wait = False
        self._max_events = self._events_room = -1

    def put_marker(self) -> FlushMarker:
        """Add a marker behind everything that is in the buffer now, and wake the flusher."""
        marker = FlushMarker()
        self._items.append(marker)
        self.wake()
        return marker

    def withdraw(self, marker: FlushMarker) -> None:
        """Remove a marker that no caller waits for any more."""
        marker.reached.set()
        with self._take_lock:
            try:
                self._items.remove(marker)
            except (ValueError, IndexError):  # taken already, or a concurrent `put`
                return

    @property
    def pending(self) -> int:
        """Items that were accepted and not yet released; a marker in the buffer counts as one."""
        return len(self._items) + self._taken

    @property
    def waiting(self) -> int:
        """Items that were accepted and not yet taken."""
        return len(self._items)

    def wake(self) -> None:
        """End the current or next `wait` of the flusher."""
        self._wakeups.put(None)

    # Called by the flusher only:

    def take(self, most: int) -> list[BufferedEvent | FlushMarker]:
        """Remove and return the oldest items; they count against the bounds until released."""
        taken: list[BufferedEvent | FlushMarker] = []
        with self._take_lock:
            count = min(most, len(self._items))
            self._add_taken(count)  # first, so that `pending` never misses them
            try:
                taken.extend(starmap(self._items.popleft, repeat((), count)))
            finally:
                self._add_taken(len(taken) - count)
        return taken

    def release(self, events: int, size: int) -> None:
        """Free the room of items that are sent, spooled or dropped; `size` in bytes."""
        with self._take_lock:  # `_drop_oldest` changes the room, too
            self._add_taken(-events)
            self._bytes_room += size
            self._releases += 1
            if not self._taken and not self._items:
                self._bytes_room = self._bytes_in + self._max_bytes

    def _add_taken(self, count: int) -> None:
        self._taken += count
        self._events_room = self._max_events - self._taken

    def wait(self, timeout_s: float | None) -> None:
        """Return after `wake`, or after `timeout_s` seconds."""
        try:
            self._wakeups.get(timeout=timeout_s)
            while True:
                self._wakeups.get_nowait()
        except Empty:
            return

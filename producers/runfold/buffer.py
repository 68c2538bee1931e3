"""The bounded memory between the runners' threads and the flusher.

Invariant: an item that `put` accepted is taken by the flusher exactly once, in the order in
which `put` was called, and counts against the bounds until the flusher releases it. No lock is
taken on the way in, so that a signal handler, a finalizer or a fork in the middle of `put`
cannot leave anything locked: appending to a deque is atomic. The number of bytes is added up
without one too; should that ever go wrong, it is put right when the buffer is next empty.
"""

from collections import deque
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from threading import Event as Signal

from .sealing import Unsealed


class Barrier:
    """A place in the buffer: set once everything before it is settled."""

    def __init__(self) -> None:
        self.reached = Signal()
        self.targets: dict[int, int] = {}
        self.epoch = -1


class Buffer:
    """Full: the newest are refused and counted, since what is already accepted was promised."""

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._items: deque[Unsealed | Barrier] = deque()
        self._bytes_in = 0
        self._bytes_out = 0
        self._taken = 0
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._asleep = False
        self.dropped = 0

    def put(self, item: Unsealed) -> bool:
        """Accept an item, or say that there is no room."""
        size = item[4]
        if (
            len(self._items) + self._taken >= self._max_events
            or self._bytes_in - self._bytes_out + size > self._max_bytes
        ):
            self.dropped += 1
            return False
        self._bytes_in += size
        self._items.append(item)
        if self._asleep:
            self.ring()
        return True

    def put_all(self, items: Sequence[Unsealed]) -> bool:
        """All of them or, when there is no room, none."""
        size = sum(item[4] for item in items)
        events = len(self._items) + self._taken + len(items)
        if events > self._max_events or self._bytes_in - self._bytes_out + size > self._max_bytes:
            self.dropped += len(items)
            return False
        self._bytes_in += size
        self._items.extend(items)
        if self._asleep:
            self.ring()
        return True

    def close(self) -> None:
        """From now on there is no room."""
        self._max_events = -1

    def put_barrier(self) -> Barrier:
        """Ask for news of everything that is in the buffer now; wakes the flusher."""
        barrier = Barrier()
        self._items.append(barrier)
        self.ring()
        return barrier

    def withdraw(self, barrier: Barrier) -> None:
        """Nobody waits for it any longer."""
        barrier.reached.set()
        try:
            self._items.remove(barrier)
        except (ValueError, IndexError):  # taken already, or the flusher is taking right now
            return

    @property
    def pending(self) -> int:
        """Accepted and not yet released; a barrier in the buffer counts as one."""
        return len(self._items) + self._taken

    def ring(self) -> None:
        """Wake the flusher, whatever it waits for."""
        self._asleep = False
        self._bell.put(None)

    # From here on: for the flusher alone.

    def take(self, most: int) -> list[Unsealed | Barrier]:
        """The oldest items; they stay within the bounds until they are released."""
        taken: list[Unsealed | Barrier] = []
        count = min(most, len(self._items))
        self._taken += count  # before they leave the deque, so that `pending` never misses them
        while len(taken) < count:
            try:
                taken.append(self._items.popleft())
            except IndexError:  # a barrier was withdrawn meanwhile
                break
        self._taken -= count - len(taken)
        return taken

    def release(self, events: int, size: int) -> None:
        """These are in the stream, or given up."""
        self._taken -= events
        self._bytes_out += size
        if not self._taken and not self._items:
            self._bytes_out = self._bytes_in

    def wait(self, timeout_s: float | None, *, for_items: bool) -> None:
        """Until the bell rings, which an item does only if it was asked for, or time is up."""
        if for_items:
            self._asleep = True  # before looking: whoever appends after this look rings
            if self._items:
                self._asleep = False
                return
        try:
            self._bell.get(timeout=timeout_s)
            while True:
                self._bell.get_nowait()
        except Empty:
            self._asleep = False

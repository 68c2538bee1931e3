"""The subscribers of one filter: the events that each has not been sent yet, and its position.

A slow client has at most one waiting event per run, the newest. Beyond `MAX_WAITING` events or
`MAX_WAITING_BYTES` they are dropped, and the client gets a snapshot instead.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from msgspec import Raw

from runfold_storage.change_feed.reader import Cursor, Key, encode_feed_cursor
from runfold_storage.filters.run_filter import RunFilter, match_of

from .updates import StreamEvent, Updates

MAX_WAITING: Final = 5_000
MAX_WAITING_BYTES: Final = 16 * 1024 * 1024


class Wakeup(asyncio.Event):
    """Set when there is work for the one task that waits for it."""

    async def within(self, timeout_s: float) -> bool:
        """Wait for work and clear the event; return False after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):  # `wait_for` would create a task
                await self.wait()
        except TimeoutError:
            return False
        self.clear()
        return True


Item = TypeVar("Item", bytes, Raw)


class BoundedQueue(Generic[Item]):
    """Drops its oldest items beyond a number of bytes and of items."""

    def __init__(self, max_bytes: int, max_items: int = sys.maxsize) -> None:
        self._max_bytes = max_bytes
        self._max_items = max_items
        self._items: deque[Item] = deque()
        self._bytes = 0

    def add(self, item: Item) -> None:
        self._items.append(item)
        self._bytes += size_of(item)
        while len(self._items) > self._max_items or self._bytes > self._max_bytes:
            self._bytes -= size_of(self._items.popleft())

    def items(self) -> list[Item]:
        return list(self._items)

    def take(self) -> list[Item]:
        items = self.items()
        self._items.clear()
        self._bytes = 0
        return items


def size_of(item: bytes | Raw) -> int:
    return memoryview(item).nbytes


class Subscriber:
    """Filled by the broker, emptied by the stream of one client."""

    def __init__(self, topic: "Topic", max_bytes: int = MAX_WAITING_BYTES) -> None:
        self.topic = topic
        self.needs_snapshot = False
        self._max_bytes = max_bytes
        self._waiting: dict[tuple[int, object], StreamEvent] = {}
        self._waiting_bytes = 0
        self._reached: Cursor = ()
        self._sent: list[int] = []
        self.wakeup = Wakeup()

    def add(self, events: Sequence[StreamEvent], cursor: Cursor) -> None:
        """Queue events; `cursor` is the position that they lead to."""
        self._reached = cursor
        if not events or self.needs_snapshot:
            return
        for event in events:
            key = (event.change.shard, event.change.run)
            known = self._waiting.get(key)
            if known is None or known.change.change_seq < event.change.change_seq:
                self._waiting[key] = event
                self._waiting_bytes += len(event.data) - (0 if known is None else len(known.data))
        if len(self._waiting) > MAX_WAITING or self._waiting_bytes > self._max_bytes:
            self.request_snapshot()
        else:
            self.wakeup.set()

    def request_snapshot(self) -> None:
        """Drop the waiting events; the stream sends a snapshot next."""
        self._clear()
        self.needs_snapshot = True
        self.wakeup.set()

    def start_queueing(self) -> None:
        """Queue events from now on, because a snapshot or missed changes are about to be read."""
        self._clear()
        self.needs_snapshot = False

    def set_position(self, cursor: Cursor) -> None:
        """Set the position up to which the client has everything."""
        self._sent = list(cursor)
        self._reached = cursor

    def take(self) -> list[tuple[str, StreamEvent]]:
        """Remove and return the waiting events, each with the client's cursor once it is sent."""
        waiting = sorted(self._waiting.values())
        self._clear()
        taken = []
        for event in waiting:
            shard, number = event.change.shard, event.change.change_seq
            if number > self._sent[shard]:
                self._sent[shard] = number
                taken.append((encode_feed_cursor(tuple(self._sent)), event))
        return taken

    def position(self) -> str:
        """Return the client's cursor; changes of other filters count as sent if nothing waits."""
        if not self._waiting and len(self._reached) == len(self._sent):
            self._sent = [max(pair) for pair in zip(self._sent, self._reached, strict=True)]
        return encode_feed_cursor(tuple(self._sent))

    def _clear(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0


class Topic:
    def __init__(self, wanted: RunFilter) -> None:
        self.wanted = wanted
        self.match = match_of(wanted)
        self.subscribers: set[Subscriber] = set()
        self._non_matching: dict[Key, None] = {}

    def publish(self, updates: Updates) -> None:
        events = updates.events_for(self.wanted.cache_key(), self._non_matching)
        for subscriber in self.subscribers:
            subscriber.add(events, updates.changes.cursor)

    def request_snapshots(self) -> None:
        for subscriber in self.subscribers:
            subscriber.request_snapshot()

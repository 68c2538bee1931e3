"""The start of a stream: the changes that its client missed, or a snapshot."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from runfold_storage.change_feed.reader import Cursor, FilterSet
from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.history import History
from runfold_storage.read_models.summaries import RunPage

from .updates import StreamEvent, read_updates


class Snapshot(NamedTuple):
    """A page of runs, and the cursor at which it was read."""

    cursor: Cursor
    page: RunPage


class Missed(NamedTuple):
    """The changes since a cursor, and the cursor that they lead to."""

    cursor: Cursor
    events: list[StreamEvent]


def read_snapshot(history: History, wanted: RunFilter, limit: int) -> Snapshot:
    """Return the newest runs of a filter."""
    return Snapshot(*history.snapshot(wanted, limit))


def read_missed(history: History, wanted: RunFilter, after: Cursor) -> Missed | None:
    """Return the changes after a cursor; None if only a snapshot can catch up."""
    news = read_updates(history, after, FilterSet([wanted]))
    if news is None:
        return None
    return Missed(news.changes.cursor, news.events_for(wanted.cache_key()))


class SnapshotCache:
    """Shares snapshots: callers that ask while one is being read all get the next one.

    Not the one under way, because it may be older than changes that a caller has discarded. Only
    snapshots that callers wait for are in memory: at most one read and one next per filter.
    """

    def __init__(self, read: Callable[[RunFilter, int], Awaitable[Snapshot]]) -> None:
        self._read = read
        self._next: dict[tuple[bytes, int], asyncio.Task[Snapshot]] = {}
        self._busy: dict[tuple[bytes, int], asyncio.Lock] = {}

    async def get(self, wanted: RunFilter, limit: int) -> Snapshot:
        """Return a snapshot that is read after this call."""
        key = (wanted.cache_key(), limit)
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._take(key, wanted, limit))
        return await asyncio.shield(task)

    async def _take(self, key: tuple[bytes, int], wanted: RunFilter, limit: int) -> Snapshot:
        lock = self._busy.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                del self._next[key]  # later callers need a later snapshot
                return await self._read(wanted, limit)
        finally:
            if key not in self._next:
                self._busy.pop(key, None)

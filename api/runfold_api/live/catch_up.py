"""How a stream begins: from what its client missed, or from a snapshot."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from sqlalchemy import Connection

from runfold_storage.change_feed.reader import Cursor, FilterSet, read_cursor
from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.queries.runs.pages import Page, read_runs
from runfold_storage.read_models.summaries import RunPage

from .updates import StreamEvent, read_updates


class Snapshot(NamedTuple):
    """A page of runs, and how far the fold had come."""

    cursor: Cursor
    page: RunPage


class Missed(NamedTuple):
    """What has changed since, and how far that goes."""

    cursor: Cursor
    said: list[StreamEvent]


def read_snapshot(connection: Connection, wanted: RunFilter, limit: int) -> Snapshot:
    """The newest runs of a filter."""
    return Snapshot(read_cursor(connection), read_runs(connection, wanted, Page(limit)))


def read_missed(connection: Connection, wanted: RunFilter, after: Cursor) -> Missed | None:
    """None: only a snapshot can tell."""
    news = read_updates(connection, after, FilterSet([wanted]))
    if news is None:
        return None
    return Missed(news.changes.cursor, news.said_to(wanted.question()))


class SnapshotCache:
    """Snapshots for many at once: all who ask while one is being read get the next one.

    Not the one under way: it may lie before what an asker has already been told to forget.
    """

    def __init__(self, read: Callable[[RunFilter, int], Awaitable[Snapshot]]) -> None:
        self._read = read
        self._next: dict[tuple[bytes, int], asyncio.Task[Snapshot]] = {}
        self._busy: dict[tuple[bytes, int], asyncio.Lock] = {}

    async def get(self, wanted: RunFilter, limit: int) -> Snapshot:
        """One that was read after this call."""
        key = (wanted.question(), limit)
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._take(key, wanted, limit))
        return await asyncio.shield(task)

    async def _take(self, key: tuple[bytes, int], wanted: RunFilter, limit: int) -> Snapshot:
        lock = self._busy.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                del self._next[key]  # who comes from now on needs a later one
                return await self._read(wanted, limit)
        finally:
            if key not in self._next:
                self._busy.pop(key, None)

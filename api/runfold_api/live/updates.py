"""Changes, read once for any number of filters, and the stream events of each filter."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from runfold_storage.change_feed.notifications import Notification
from runfold_storage.change_feed.reader import Change, Changes, Cursor, FilterSet, Key
from runfold_storage.filters.run_filter import Match, RunFilter
from runfold_storage.history import History
from runfold_storage.read_models.summaries import RunPage, run_id, summary_of


class StreamEvent(NamedTuple):
    change: Change
    event: str
    data: bytes


_MAX_NON_MATCHING: Final = 10_000
"""Keys of a fixed size: about 2 MB per filter."""


class Updates(NamedTuple):
    """Changes, the rows of their runs, and the keys of the matching runs by filter."""

    changes: Changes
    rows: dict[Key, Any]
    own: dict[bytes, set[Key]]
    encoded: dict[Key, bytes]

    def events_for(self, filter_key: bytes, non_matching: dict[Key, None]) -> list[StreamEvent]:
        """Return the events for the subscribers of a filter.

        A run that does not match is reported as removed once, unless it is new: it may have matched
        when the client received it, even from another process. `non_matching` remembers such runs.
        """
        own = self.own[filter_key]
        events = []
        for change in self.changes.changed:
            key = (change.shard, change.run)
            if change.gone is not None:
                deleted = msgspec.json.encode({"id": change.gone})
                events.append(StreamEvent(change, "deleted", deleted))
            elif key in own:
                non_matching.pop(key, None)
                if key not in self.encoded:  # once for all filters
                    self.encoded[key] = msgspec.json.encode(summary_of(self.rows[key]))
                events.append(StreamEvent(change, "changed", self.encoded[key]))
            elif key in self.rows:
                if not change.is_new and key not in non_matching:
                    removed = {"id": run_id(self.rows[key])}
                    events.append(StreamEvent(change, "removed", msgspec.json.encode(removed)))
                non_matching.pop(key, None)
                non_matching[key] = None
        while len(non_matching) > _MAX_NON_MATCHING:
            del non_matching[next(iter(non_matching))]
        return events

    def run_ids(self) -> set[str]:
        """Return the ids of all changed runs whose row is known."""
        gone = {change.gone for change in self.changes.changed if change.gone is not None}
        return gone | {run_id(row) for row in self.rows.values()}


def read_updates(history: History, after: Cursor, interests: FilterSet) -> Updates | None:
    """Return what came after a cursor; None if only a snapshot can tell (`History.changes`)."""
    found = history.changes(after, interests)
    if found is None:
        return None
    changes, changed_rows = found
    rows: dict[Key, Any] = {}
    own: list[set[Key]] = [set() for _ in interests.filters]
    for row in changed_rows:
        key = (row.shard, row.run.bytes)
        rows[key] = row
        for position in row.own:
            own[position].add(key)
    return Updates(changes, rows, dict(zip(interests.questions, own, strict=True)), {})


def read_missed(
    history: History, wanted: RunFilter, after: Cursor
) -> tuple[list[StreamEvent], Cursor] | None:
    """Return the events after a cursor, and the cursor that they lead to; None as above."""
    missed = read_updates(history, after, FilterSet([wanted]))
    if missed is None:
        return None
    return missed.events_for(wanted.cache_key(), {}), missed.changes.cursor


def updates_of(notification: Notification, matches: Mapping[bytes, Match]) -> Updates:
    """Return a notification's updates, for filters that need no PostgreSQL."""
    rows: dict[Key, Any] = dict(notification.rows)
    own = {
        filter_key: {key for key, row in notification.rows.items() if match(row)}
        for filter_key, match in matches.items()
    }
    return Updates(notification.changes, rows, own, {})


Snapshot = tuple[Cursor, RunPage]
"""The newest runs of a filter, and the cursor at which they were read."""


class SnapshotCache:
    """Shares snapshots: callers that ask while one is being read all get the next one.

    Not the one under way, because it may be older than changes that a caller has discarded. Only
    snapshots that callers wait for are in memory: at most one read and one next per filter.
    """

    def __init__(self, read: Callable[[RunFilter, int], Snapshot]) -> None:
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
                return await asyncio.to_thread(self._read, wanted, limit)
        finally:
            if key not in self._next:
                self._busy.pop(key, None)

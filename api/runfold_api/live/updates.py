"""Changes, read once for any number of filters, and the stream events of each filter."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from runfold_storage.change_feed.notifications import Notification
from runfold_storage.change_feed.reader import Change, Changes, Cursor, FilterSet, Key
from runfold_storage.filters.row_matcher import Match
from runfold_storage.history import History
from runfold_storage.read_models.summaries import run_id, summary_of


class StreamEvent(NamedTuple):
    """An encoded event of a stream."""

    change: Change
    event: str
    data: bytes


_MAX_NON_MATCHING: Final = 10_000
"""Keys of a fixed size: about 2 MB per filter."""


class NonMatching:
    """Keys of runs that are known not to match a filter; the oldest are forgotten first."""

    def __init__(self) -> None:
        self._keys: dict[Key, None] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def add(self, key: Key) -> None:
        """Remember a run that does not match."""
        self._keys.pop(key, None)
        self._keys[key] = None
        if len(self._keys) > _MAX_NON_MATCHING:
            del self._keys[next(iter(self._keys))]

    def discard(self, key: Key) -> None:
        """Forget a run that matches again."""
        self._keys.pop(key, None)


class Updates(NamedTuple):
    """Changes, the rows of their runs, and the keys of the matching runs by filter.

    A row comes from the table `runs` or from a worker's notification (`RunRow`).
    """

    changes: Changes
    rows: dict[Key, Any]
    own: dict[bytes, set[Key]]
    encoded: dict[Key, bytes]

    def events_for(
        self, question: bytes, non_matching: NonMatching | None = None
    ) -> list[StreamEvent]:
        """Return the events for the subscribers of a filter.

        A run that does not match is reported as removed once, unless it is new: it may have matched
        when the client received it, even from another process. `non_matching` remembers such runs.
        """
        own = self.own[question]
        others = NonMatching() if non_matching is None else non_matching
        events = []
        for change in self.changes.changed:
            key = (change.shard, change.run)
            if change.gone is not None:
                events.append(
                    StreamEvent(change, "deleted", msgspec.json.encode({"id": change.gone}))
                )
            elif key in own:
                others.discard(key)
                events.append(StreamEvent(change, "changed", self._encode(key)))
            elif key in self.rows:
                if not change.is_new and key not in others:
                    removed = {"id": run_id(self.rows[key])}
                    events.append(StreamEvent(change, "removed", msgspec.json.encode(removed)))
                others.add(key)
        return events

    def run_ids(self) -> set[str]:
        """Return the ids of all changed runs whose row is known."""
        gone = {change.gone for change in self.changes.changed if change.gone is not None}
        return gone | {run_id(row) for row in self.rows.values()}

    def _encode(self, key: Key) -> bytes:
        if key not in self.encoded:  # once for all filters
            self.encoded[key] = msgspec.json.encode(summary_of(self.rows[key]))
        return self.encoded[key]


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
        for place in row.own:
            own[place].add(key)
    return Updates(changes, rows, dict(zip(interests.questions, own, strict=True)), {})


def updates_of(notification: Notification, matches: Mapping[bytes, Match]) -> Updates:
    """Return a notification's updates, for filters that need no PostgreSQL."""
    rows: dict[Key, Any] = dict(notification.rows)
    own = {
        question: {key for key, row in notification.rows.items() if match(row)}
        for question, match in matches.items()
    }
    return Updates(notification.changes, rows, own, {})

"""What has changed, read once for any number of filters, and what each of them is told of it."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection

from runfold_storage.change_feed.notifications import Notification
from runfold_storage.change_feed.reader import Change, Changes, Cursor, FilterSet, Key, read_changes
from runfold_storage.filters.row_matcher import Match
from runfold_storage.read_models.summaries import run_id, summary_of


class StreamEvent(NamedTuple):
    """An event of a stream, encoded."""

    change: Change
    event: str
    data: bytes


_MOST_OTHERS: Final = 10_000


class NonMatching:
    """Runs that are known not to be of a filter; of too many, the oldest are forgotten."""

    def __init__(self) -> None:
        self._keys: dict[Key, None] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def add(self, key: Key) -> None:
        """It is not of the filter."""
        self._keys.pop(key, None)
        self._keys[key] = None
        if len(self._keys) > _MOST_OTHERS:
            del self._keys[next(iter(self._keys))]

    def discard(self, key: Key) -> None:
        """It is of the filter."""
        self._keys.pop(key, None)


class Updates(NamedTuple):
    """The changes, the rows of their runs, and by filter which of these are its own.

    A row is one of `runs`, or the `RunRow` that a worker has announced.
    """

    changes: Changes
    rows: dict[Key, Any]
    own: dict[bytes, set[Key]]
    encoded: dict[Key, bytes]

    def said_to(
        self, question: bytes, known_others: NonMatching | None = None
    ) -> list[StreamEvent]:
        """What the watchers of a filter are told.

        Of a run that is not of the filter they are told once, unless it is new: it may have been
        of the filter when they were sent it, by whomever. `known_others` remembers those.
        """
        own = self.own[question]
        others = NonMatching() if known_others is None else known_others
        said = []
        for change in self.changes.changed:
            key = (change.shard, change.run)
            if change.gone is not None:
                said.append(
                    StreamEvent(change, "deleted", msgspec.json.encode({"id": change.gone}))
                )
            elif key in own:
                others.discard(key)
                said.append(StreamEvent(change, "changed", self._encode(key)))
            elif key in self.rows:
                if not change.is_new and key not in others:
                    removed = {"id": run_id(self.rows[key])}
                    said.append(StreamEvent(change, "removed", msgspec.json.encode(removed)))
                others.add(key)
        return said

    def run_ids(self) -> set[str]:
        """Of all runs that have changed, as far as they are known."""
        gone = {change.gone for change in self.changes.changed if change.gone is not None}
        return gone | {run_id(row) for row in self.rows.values()}

    def _encode(self, key: Key) -> bytes:
        if key not in self.encoded:  # once, however many watch
            self.encoded[key] = msgspec.json.encode(summary_of(self.rows[key]))
        return self.encoded[key]


def read_updates(connection: Connection, after: Cursor, interests: FilterSet) -> Updates | None:
    """What came after a cursor; None if that cannot be told (see `read_changes`)."""
    changes = read_changes(connection, after)
    if changes is None:
        return None
    rows: dict[Key, Any] = {}
    own: list[set[Key]] = [set() for _ in interests.filters]
    for row in interests.read(connection, changes.changed):
        key = (row.shard, row.run.bytes)
        rows[key] = row
        for place in row.own:
            own[place].add(key)
    return Updates(changes, rows, dict(zip(interests.questions, own, strict=True)), {})


def updates_of(heard: Notification, matches: Mapping[bytes, Match]) -> Updates:
    """What a worker has announced, for the filters that can be told without PostgreSQL."""
    rows: dict[Key, Any] = dict(heard.rows)
    own = {
        question: {key for key, row in heard.rows.items() if match(row)}
        for question, match in matches.items()
    }
    return Updates(heard.changes, rows, own, {})

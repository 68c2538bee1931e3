"""Read the change feed: the changes after a cursor, and which filters they match.

`checkpoints.change_log` says what is kept and for how long. The feed is read up to fifty times a
second while there are watchers, so one statement serves all filters.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from runfold_storage.checkpoints.change_log import decode_entries
from runfold_storage.filters.run_filter import COLUMNS, RUNS_AT_KEYS, RunFilter
from runfold_storage.postgres.connections import ReadConnection

MAX_BEHIND: Final = 20_000
"""The most changes that a reader can catch up with."""

Cursor = tuple[int, ...]
"""The last number that was read of each shard, from shard 0 on."""
Key = tuple[int, bytes]
"""(shard, the 16 bytes of the run key)"""


class Change(NamedTuple):
    """A run's newest change; `gone`: the id of a deleted run; `is_new`: it is new to the reader."""

    shard: int
    change_seq: int
    run: bytes
    gone: str | None = None
    is_new: bool = False


class Changes(NamedTuple):
    """The changes up to `cursor`, each run once, ordered by number."""

    cursor: Cursor
    changed: list[Change]


class FilterSet:
    """Matches runs against filters in PostgreSQL, as lists do, so that both agree."""

    def __init__(self, filters: Sequence[RunFilter]) -> None:
        self.filters = filters
        self.questions = [wanted.cache_key() for wanted in filters]
        matches = []
        self._parameters: dict[str, Any] = {}
        for number, run_filter in enumerate(filters):
            prefix = f"f{number}_"
            conditions = " AND ".join(run_filter.conditions("r", prefix=prefix)) or "true"
            matches.append(f"CASE WHEN {conditions} THEN {number} END")
            self._parameters |= run_filter.parameters(prefix=prefix)
        own = f"array_remove(ARRAY[{', '.join(matches)}]::smallint[], NULL) AS own"
        self._rows = f"SELECT {COLUMNS}, {own} FROM {RUNS_AT_KEYS}"  # noqa: S608 - of constants

    def read(self, connection: ReadConnection, changed: Sequence[Change]) -> list[Any]:
        """Return the rows of these runs; `own` has the indexes of the filters that match."""
        if not changed:
            return []
        keys = {
            "shards": [change.shard for change in changed],
            "keys": [change.run.hex() for change in changed],
        }
        return connection.execute(self._rows, self._parameters | keys).fetchall()


def read_cursor(connection: ReadConnection) -> Cursor:
    """Return the cursor of the newest change."""
    found = connection.execute("SELECT change_seq FROM positions ORDER BY shard")
    return tuple(change_seq for (change_seq,) in found)


def read_changes(connection: ReadConnection, after: Cursor) -> Changes | None:
    """Return the changes after a cursor; None if it is too old, or not of this database."""
    reached: list[int] = []
    now: list[int] = []
    newest: dict[Key, Change] = {}
    for row in connection.execute(_AFTER, {"after": list(after), "most": MAX_BEHIND}):
        if row.shard == len(now):
            if row.shard == len(after) or after[row.shard] > row.now:
                return None
            now.append(row.now)
            reached.append(after[row.shard])
        if row.change_seq is None:
            continue
        entries = _entries(row)
        if row.change_seq - len(entries) > reached[row.shard]:
            return None  # the rows between were deleted
        reached[row.shard] = row.change_seq
        missed = max(row.change_seq - after[row.shard], 0)
        for change in entries[-missed:]:
            key = (change.shard, change.run)
            older = newest.get(key)
            was_new = older is not None and older.is_new and not change.is_new
            newest[key] = change._replace(is_new=True) if was_new else change
    if reached != now or len(now) != len(after) or sum(now) - sum(after) > MAX_BEHIND:
        return None
    return Changes(tuple(now), sorted(newest.values()))


def encode_feed_cursor(cursor: Cursor) -> str:
    """Encode a cursor for clients."""
    return ".".join(map(str, cursor))


def decode_feed_cursor(text: str | None) -> Cursor | None:
    """Decode a client's cursor; None if it is invalid: the client then gets a snapshot."""
    if text is None or len(text) > _LONGEST or not text.isascii():
        return None
    parts = text.split(".")
    if not all(part.isdecimal() and len(part) < _LONGEST_NUMBER for part in parts):
        return None
    return tuple(map(int, parts))


_LONGEST: Final = 20_000
_LONGEST_NUMBER: Final = 19


def _entries(row: Any) -> list[Change]:
    shard, change_seq, gone = row.shard, row.change_seq, row.deleted_ids
    entries = decode_entries(row.runs)
    first = change_seq - len(entries) + 1
    return [
        Change(shard, first + place, run, None if gone is None else gone[place], is_new)
        for place, (run, is_new) in enumerate(entries)
    ]


# One statement, so one snapshot. LATERAL with a LIMIT makes PostgreSQL read only the end of the
# index, whatever the planner estimates. If there are too many changes, nothing is read.
_AFTER: Final = """
    SELECT p.shard, p.change_seq AS now, c.change_seq, c.runs, c.deleted_ids
    FROM (SELECT shard, change_seq, (%(after)s::bigint[])[shard + 1] AS after FROM positions) AS p
    LEFT JOIN LATERAL (
        SELECT c.change_seq, c.runs, c.deleted_ids FROM changes AS c
        WHERE c.shard = p.shard AND c.change_seq > p.after AND p.change_seq - p.after <= %(most)s
        ORDER BY c.change_seq
        LIMIT %(most)s
    ) AS c ON true
    ORDER BY p.shard, c.change_seq
"""

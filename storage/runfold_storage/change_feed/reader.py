"""The feed of changes as it is read: what came after a cursor, and which filters it concerns.

See `changes` for what is kept, and for how long. Read some fifty times a second while somebody
watches, so statements are sent as text that was made once, and one serves any number of filters.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Connection,
    SmallInteger,
    and_,
    case,
    cast,
    func,
    null,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, array

from runfold_storage.checkpoints.change_log import entries_of
from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.filters.summary_columns import SUMMARY_COLUMNS, runs_at
from runfold_storage.postgres.statements import Statement, compile_statement, row_of
from runfold_storage.tables import positions

MAX_BEHIND: Final = 20_000
"""Changes that a reader may catch up with."""

Cursor = tuple[int, ...]
"""How far a reader has come: the last number of each shard, from shard 0 on."""
Key = tuple[int, bytes]
"""A run: its shard, and the 16 bytes of its key."""


class Change(NamedTuple):
    """A run's newest change; `gone` is the id of a run that was deleted.

    `is_new`: there was no such run at the cursor from which this was read.
    """

    shard: int
    feed_seq: int
    run: bytes
    gone: str | None = None
    is_new: bool = False


class Changes(NamedTuple):
    """What has changed, each run once, by its number; and how far that goes."""

    cursor: Cursor
    changed: list[Change]


class FilterSet:
    """Some filters, and which runs are of which: asked of PostgreSQL, as lists are, so that the two
    cannot disagree."""

    def __init__(self, filters: Sequence[RunFilter]) -> None:
        self.filters = filters
        self.questions = [wanted.question() for wanted in filters]
        matches = [
            case((and_(true(), *wanted.conditions(prefix=f"f{number}_")), number), else_=null())
            for number, wanted in enumerate(filters)
        ]
        own = cast(array(matches), ARRAY(SmallInteger))
        columns = (*SUMMARY_COLUMNS, func.array_remove(own, null()).label("own"))
        self._rows = compile_statement(select(*columns).select_from(runs_at()))

    def read(self, connection: Connection, changed: Sequence[Change]) -> list[Any]:
        """The rows of these runs, as far as they are there.

        `own` has the places of the filters that a run is of.
        """
        if not changed:
            return []
        keys = {
            "shards": [change.shard for change in changed],
            "keys": [change.run.hex() for change in changed],
        }
        return self._rows.run(connection, keys)


def read_cursor(connection: Connection) -> Cursor:
    """How far the fold has come."""
    found = connection.execute(select(positions.c.feed_seq).order_by(positions.c.shard))
    return tuple(found.scalars())


def read_changes(connection: Connection, after: Cursor) -> Changes | None:
    """What came after a cursor; None if that is too much, too long ago, or not of this database."""
    reached: list[int] = []
    now: list[int] = []
    newest: dict[Key, Change] = {}
    for row in _AFTER.run(connection, {"after": list(after), "most": MAX_BEHIND}):
        if row.shard == len(now):
            if row.shard == len(after) or after[row.shard] > row.now:
                return None
            now.append(row.now)
            reached.append(after[row.shard])
        if row.feed_seq is None:
            continue
        entries = _entries(row)
        if row.feed_seq - len(entries) > reached[row.shard]:
            return None  # those between are forgotten
        reached[row.shard] = row.feed_seq
        missed = max(row.feed_seq - after[row.shard], 0)
        for change in entries[-missed:]:
            key = (change.shard, change.run)
            older = newest.get(key)
            was_new = older is not None and older.is_new and not change.is_new
            newest[key] = change._replace(is_new=True) if was_new else change
    if reached != now or len(now) != len(after) or sum(now) - sum(after) > MAX_BEHIND:
        return None
    return Changes(tuple(now), sorted(newest.values()))


def encode_feed_cursor(cursor: Cursor) -> str:
    """As a watcher is told it."""
    return ".".join(map(str, cursor))


def decode_feed_cursor(text: str | None) -> Cursor | None:
    """None for anything that is none: its reader gets a snapshot."""
    if text is None or len(text) > _LONGEST or not text.isascii():
        return None
    parts = text.split(".")
    if not all(part.isdecimal() and len(part) < _LONGEST_NUMBER for part in parts):
        return None
    return tuple(map(int, parts))


_LONGEST: Final = 20_000
_LONGEST_NUMBER: Final = 19


def _entries(row: Any) -> list[Change]:
    shard, feed_seq, gone = row.shard, row.feed_seq, row.gone
    entries = entries_of(row.runs)
    first = feed_seq - len(entries) + 1
    return [
        Change(shard, first + place, run, None if gone is None else gone[place], is_new)
        for place, (run, is_new) in enumerate(entries)
    ]


# One statement sees one state. LATERAL with a LIMIT, so that only the index's end is looked at,
# whatever the planner believes of how much has come. Where it is too much, nothing is read.
_AFTER: Final = Statement(
    """
    SELECT p.shard, p.feed_seq AS now, c.feed_seq, c.runs, c.gone
    FROM (SELECT shard, feed_seq, (%(after)s::bigint[])[shard + 1] AS after FROM positions) AS p
    LEFT JOIN LATERAL (
        SELECT c.feed_seq, c.runs, c.gone FROM changes AS c
        WHERE c.shard = p.shard AND c.feed_seq > p.after AND p.feed_seq - p.after <= %(most)s
        ORDER BY c.feed_seq
        LIMIT %(most)s
    ) AS c ON true
    ORDER BY p.shard, c.feed_seq
    """,
    {},
    row_of("shard", "now", "feed_seq", "runs", "gone"),
)

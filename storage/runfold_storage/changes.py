"""The feed of changes: which runs changed, in the order in which the fold committed it.

Each batch numbers the run rows that it writes, per shard (`feed_seq`), and leaves a row in
`changes` in its own transaction. So a reader who has come as far as a number misses nothing that
was committed behind it and is told nothing twice, whoever restarts. Rows are kept for
`KEPT_MINUTES`: who comes back later, or has too many changes to catch up with, starts from a
snapshot.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg
from sqlalchemy import (
    Connection,
    Row,
    Select,
    SmallInteger,
    Uuid,
    cast,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY

from .filters import RunFilter
from .rows import RunRow
from .tables import changes, positions, runs
from .ways import SUMMARY_COLUMNS

KEPT_MINUTES: Final = 10
MAX_BEHIND: Final = 20_000
"""Changes that a reader may catch up with."""

Cursor = tuple[int, ...]
"""How far a reader has come: the last number of each shard, from shard 0 on."""

_ENTRY_BYTES: Final = 17
"""A flag, 1 for a run that was not there before, and the run's key."""
_CHANGED: Final = b"\0"
_NEW: Final = b"\1"


class ChangeRow(NamedTuple):
    """What a batch says of one shard: entries for the numbers that end with `feed_seq`."""

    shard: int
    feed_seq: int
    runs: bytes


class Change(NamedTuple):
    """A run's newest change; `gone` is the id of a run that was deleted.

    `is_new`: there was no such run at the cursor from which this was read.
    """

    shard: int
    feed_seq: int
    run: UUID
    gone: str | None = None
    is_new: bool = False


class Changes(NamedTuple):
    """What has changed, each run once, by its number; and how far that goes."""

    cursor: Cursor
    changed: list[Change]


def change_rows(
    new: Iterable[tuple[RunRow, int]], changed: Iterable[tuple[RunRow, int]]
) -> list[ChangeRow]:
    """What a batch has to say of the run rows that it writes, each with its number."""
    entries = [(row.shard, feed_seq, _NEW + row.run) for row, feed_seq in new]
    entries += [(row.shard, feed_seq, _CHANGED + row.run) for row, feed_seq in changed]
    entries.sort()
    found = []
    for shard, group in groupby(entries, key=itemgetter(0)):
        own = list(group)
        found.append(ChangeRow(shard, own[-1][1], b"".join(entry for _, _, entry in own)))
    return found


def write_changes(connection: psycopg.Connection, rows: Sequence[ChangeRow]) -> None:
    """Part of the transaction that writes the runs."""
    connection.execute(
        """
        INSERT INTO changes (shard, feed_seq, runs)
        SELECT * FROM unnest(%b::smallint[], %b::bigint[], %b::bytea[])
        """,
        (
            [row.shard for row in rows],
            [row.feed_seq for row in rows],
            [row.runs for row in rows],
        ),
    )


def note_gone(connection: psycopg.Connection, shard: int, gone: Sequence[tuple[UUID, str]]) -> None:
    """Tell watchers of deleted runs, (key, id) each; the shard's checkpoint is held."""
    if not gone:
        return
    connection.execute(
        """
        WITH moved AS (
            UPDATE positions SET feed_seq = feed_seq + %s WHERE shard = %s RETURNING feed_seq
        )
        INSERT INTO changes (shard, feed_seq, runs, gone) SELECT %s, feed_seq, %s, %s FROM moved
        """,
        (
            len(gone),
            shard,
            shard,
            b"".join(_CHANGED + run.bytes for run, _ in gone),
            [run_id for _, run_id in gone],
        ),
    )


def forget_changes(connection: psycopg.Connection) -> None:
    """Let go of what is older than `KEPT_MINUTES`."""
    connection.execute(
        "DELETE FROM changes WHERE changed_at < now() - make_interval(mins => %s)", (KEPT_MINUTES,)
    )


def read_cursor(connection: Connection) -> Cursor:
    """How far the fold has come."""
    found = connection.execute(select(positions.c.feed_seq).order_by(positions.c.shard))
    return tuple(found.scalars())


def read_changes(connection: Connection, after: Cursor) -> Changes | None:
    """What came after a cursor; None if that is too much, too long ago, or not of this database.

    `connection` is in a transaction with one snapshot for all of its statements.
    """
    now = read_cursor(connection)
    if len(after) != len(now) or any(was > is_ for was, is_ in zip(after, now, strict=True)):
        return None
    if sum(now) - sum(after) > MAX_BEHIND:
        return None
    behind = {shard: after[shard] for shard in range(len(now)) if after[shard] < now[shard]}
    reached = dict(behind)
    newest: dict[tuple[int, UUID], Change] = {}
    if behind:
        for row in connection.execute(_after(behind)):
            entries = list(_entries(row))
            if entries[0].feed_seq > reached[row.shard] + 1:
                return None  # those between are forgotten
            reached[row.shard] = row.feed_seq
            for change in entries:
                if change.feed_seq > behind[row.shard]:
                    key = (change.shard, change.run)
                    older = newest.get(key)
                    is_new = change.is_new or (older is not None and older.is_new)
                    newest[key] = change._replace(is_new=is_new)
    if any(number != now[shard] for shard, number in reached.items()):
        return None
    return Changes(now, sorted(newest.values()))


def read_changed_runs(
    connection: Connection, changed: Sequence[Change], wanted: RunFilter | None = None
) -> list[Row[Any]]:
    """The rows of these runs, those of the filter if there is one, as far as they are there."""
    if not changed:
        return []
    keys = (
        func.unnest(
            _bound([change.shard for change in changed], SmallInteger),
            _bound([change.run for change in changed], Uuid),
        )
        .table_valued("shard", "run", name="keys")
        .render_derived()
    )
    statement = (
        select(*SUMMARY_COLUMNS)
        .select_from(runs.join(keys, (runs.c.shard == keys.c.shard) & (runs.c.run == keys.c.run)))
        .where(*([] if wanted is None else wanted.conditions()))
    )
    return list(connection.execute(statement))


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


def _after(behind: dict[int, int]) -> Select[Any]:
    wanted = (
        func.unnest(
            _bound(list(behind), SmallInteger),
            _bound(list(behind.values()), changes.c.feed_seq.type),
        )
        .table_valued("shard", "feed_seq", name="behind")
        .render_derived()
    )
    return (
        select(changes.c.shard, changes.c.feed_seq, changes.c.runs, changes.c.gone)
        .select_from(
            changes.join(
                wanted,
                (changes.c.shard == wanted.c.shard) & (changes.c.feed_seq > wanted.c.feed_seq),
            )
        )
        .order_by(changes.c.shard, changes.c.feed_seq)
        .limit(MAX_BEHIND + 1)
    )


def _bound(values: Sequence[Any], kind: Any) -> Any:
    return cast(literal(values, ARRAY(kind)), ARRAY(kind))


def entries_of(runs: bytes) -> list[UUID]:
    """The keys of the runs that a row of `changes` is about, in the order of their numbers."""
    return [UUID(bytes=entry[1:]) for entry in _split(runs)]


def _split(runs: bytes) -> list[bytes]:
    return [runs[at : at + _ENTRY_BYTES] for at in range(0, len(runs), _ENTRY_BYTES)]


def _entries(row: Row[Any]) -> Iterator[Change]:
    entries = _split(row.runs)
    gone = row.gone or [None] * len(entries)
    first = row.feed_seq - len(entries) + 1
    for number, (entry, run_id) in enumerate(zip(entries, gone, strict=True), first):
        yield Change(row.shard, number, UUID(bytes=entry[1:]), run_id, entry[:1] == _NEW)

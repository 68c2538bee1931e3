"""Keeping the search index: it follows the feed of changes, in short steps behind the fold.

Invariant: a run whose last change has a number up to its shard's `change_seq` in `search_progress`
is in the index as it is. What comes later a reader finds by the feed itself (`search_lookup`). One
session at a time follows, by an advisory lock; each step writes and moves in one transaction, so
one that dies halfway is taken again.

The feed is kept for some minutes. Who has been away for longer, or begins, reads the runs
themselves in the order of their keys, those with a later number alone, and then goes on with the
feed from where it was when that began.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple
from uuid import UUID

import psycopg
from msgspec import Struct
from psycopg import sql

from runfold_storage.checkpoints.change_log import entries_of

from .index_writer import FOLLOWER, LOCK, Place, remove, remove_strays, write_payloads, write_runs

PAGE: Final = 2000
"""Runs that a step looks at."""
PAYLOAD_PAGE: Final = 500
"""Runs whose payloads a step reads."""
_MAX_BYTES: Final = 17 * PAGE
_BEFORE_ALL: Final = UUID(int=0)


class IndexState(Struct, frozen=True):
    """How far the index has come."""

    has_trigrams: bool
    """False: there is nothing to look texts up with."""
    shards: int
    reading_shards: int
    """Shards whose runs are read one after the other."""
    behind: int
    """Changes of runs that it has not looked at yet."""


class Step(NamedTuple):
    """What a step did, and whether the next one has something to do."""

    looked_at: int
    more: bool


def become_follower(connection: psycopg.Connection) -> bool:
    """Whether this session is the one that keeps the index, until it ends."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCK, FOLLOWER)).fetchone()
    return row == (True,)


def follow(connection: psycopg.Connection) -> Step:
    """The next changes of every shard, or the next runs of those that are read through."""
    behind = connection.execute(
        """
        SELECT p.shard, p.change_seq, coalesce(s.change_seq, 0), s.scan_target_seq, s.scan_key
        FROM positions AS p LEFT JOIN search_progress AS s ON s.shard = p.shard
        WHERE s.scan_target_seq IS NOT NULL OR p.change_seq <> coalesce(s.change_seq, 0)
        ORDER BY p.shard
        """
    ).fetchall()
    looked_at, more = 0, False
    for shard, now, done, scan_target_seq, scan_key in behind:
        with connection.transaction():
            if scan_target_seq is None:
                # Further than the fold: that was in another life of this database.
                step = _follow(connection, shard, 0 if done > now else done, now)
            else:
                step = _scan(connection, shard, done, scan_target_seq, scan_key)
        looked_at, more = looked_at + step.looked_at, more or step.more
    return Step(looked_at, more)


def backfill(connection: psycopg.Connection) -> Step:
    """Payloads of runs that were there before it was switched on, the newest first."""
    with connection.transaction():
        found = connection.execute(
            """
            SELECT project, backfill_at, backfill_run
            FROM search_projects WHERE enabled AND NOT backfilled ORDER BY project LIMIT 1
            """
        ).fetchone()
        if found is None:
            return Step(0, False)
        project, at, run = found
        page = connection.execute(
            """
            SELECT shard, run, created_at FROM runs
            WHERE project = %s
              AND (created_at, run) < (coalesce(%s::timestamptz, 'infinity'), %s)
            ORDER BY created_at DESC, run DESC LIMIT %s
            """,
            (project, at, run or _BEFORE_ALL, PAYLOAD_PAGE),
        ).fetchall()
        write_payloads(connection, [(shard, key) for shard, key, _ in page])
        whole = len(page) < PAYLOAD_PAGE
        reached = (page[-1][2], page[-1][1]) if page else (None, None)
        connection.execute(
            """
            UPDATE search_projects SET backfilled = %s, backfill_at = coalesce(%s, backfill_at),
                backfill_run = coalesce(%s, backfill_run)
            WHERE project = %s AND enabled
            """,
            (whole, *reached, project),
        )
    return Step(len(page), True)


def take_out(connection: psycopg.Connection) -> Step:
    """Payloads of a project that had it switched off."""
    with connection.transaction():
        found = connection.execute(
            "SELECT project FROM search_projects WHERE NOT enabled ORDER BY project LIMIT 1"
        ).fetchone()
        if found is None:
            return Step(0, False)
        gone = connection.execute(
            """
            DELETE FROM search_payloads AS s USING (
                SELECT shard, run FROM search_payloads WHERE project = %s LIMIT %s
            ) AS g
            WHERE s.shard = g.shard AND s.run = g.run
            """,
            (found[0], PAGE),
        ).rowcount
        if gone < PAGE:
            connection.execute(
                "DELETE FROM search_projects WHERE project = %s AND NOT enabled", (found[0],)
            )
    return Step(gone, True)


def flush_gin_pending(connection: psycopg.Connection) -> None:
    """What GIN has put aside."""
    connection.execute(
        """
        SELECT gin_clean_pending_list(c.oid) FROM pg_class AS c
        WHERE c.oid = to_regclass('search_runs_text_idx')
           OR c.oid = to_regclass('search_payloads_text_idx')
        """
    )


def make_indexes(connection: psycopg.Connection) -> bool:
    """What the migration could not make where PostgreSQL had no pg_trgm; False: it still has not.

    The connection is in autocommit mode. Writers of the index wait meanwhile; the fold does not.
    """
    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    except (
        psycopg.errors.InsufficientPrivilege,
        psycopg.errors.UndefinedFile,
        psycopg.errors.FeatureNotSupported,
    ):
        return False
    for table in ("search_runs", "search_payloads"):
        name, on = sql.Identifier(f"{table}_text_idx"), sql.Identifier(table)
        statement = sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} USING gin (text gin_trgm_ops)")
        connection.execute(statement.format(name, on))
    return True


def begin_again(connection: psycopg.Connection) -> None:
    """Every run is read once more; what is there stays until it is found to be wrong."""
    connection.execute(
        """
        UPDATE search_progress AS s
        SET change_seq = 0, scan_target_seq = p.change_seq, scan_key = %s, changed_at = NULL
        FROM positions AS p WHERE p.shard = s.shard
        """,
        (_BEFORE_ALL,),
    )


def read_state(connection: psycopg.Connection) -> IndexState:
    """How far the index has come."""
    row = connection.execute(
        """
        SELECT to_regclass('search_runs_text_idx') IS NOT NULL, count(*), count(s.scan_target_seq),
               coalesce(sum(greatest(p.change_seq - coalesce(s.change_seq, 0), 0)), 0)::bigint
        FROM positions AS p LEFT JOIN search_progress AS s ON s.shard = p.shard
        """
    ).fetchone()
    assert row is not None
    return IndexState(*row)


def _follow(connection: psycopg.Connection, shard: int, done: int, now: int) -> Step:
    rows = connection.execute(
        """
        SELECT change_seq, runs, deleted_ids IS NOT NULL, changed_at FROM (
            SELECT change_seq, runs, deleted_ids, changed_at,
                   sum(octet_length(runs)) OVER (ORDER BY change_seq) - octet_length(runs) AS before
            FROM (
                SELECT change_seq, runs, deleted_ids, changed_at FROM changes
                WHERE shard = %s AND change_seq > %s ORDER BY change_seq LIMIT 500
            ) AS next
        ) AS counted
        WHERE before < %s ORDER BY change_seq
        """,
        (shard, done, _MAX_BYTES),
    ).fetchall()
    changed: dict[Place, None] = {}
    gone: dict[Place, None] = {}
    reached, at = done, None
    for change_seq, entries, are_gone, changed_at in rows:
        keys = [UUID(bytes=run) for run, _ in entries_of(entries)]
        if change_seq - len(keys) > reached:
            break
        (gone if are_gone else changed).update(((shard, key), None) for key in keys)
        reached, at = change_seq, changed_at
    if reached == done:  # what comes next is forgotten
        connection.execute(_BEGIN_SCAN, (shard, done, now, _BEFORE_ALL))
        return Step(0, True)
    _write(connection, list(changed))
    if gone:
        remove(connection, list(gone))
    connection.execute(_MOVE, (shard, reached, at))
    return Step(len(changed) + len(gone), reached < now)


def _scan(
    connection: psycopg.Connection, shard: int, done: int, scan_target_seq: int, scan_key: UUID
) -> Step:
    page = connection.execute(
        """
        SELECT run, change_seq > %s FROM runs
        WHERE shard = %s AND run > %s ORDER BY run LIMIT %s
        """,
        (done, shard, scan_key, PAGE),
    ).fetchall()
    _write(connection, [(shard, run) for run, is_later in page if is_later])
    last = page[-1][0] if len(page) == PAGE else None
    remove_strays(connection, shard, scan_key, last)
    if last is None:
        _move(connection, shard, scan_target_seq)
    else:
        connection.execute(
            "UPDATE search_progress SET scan_key = %s WHERE shard = %s", (last, shard)
        )
    return Step(len(page), True)


def _write(connection: psycopg.Connection, places: Sequence[Place]) -> None:
    if not places:
        return
    write_runs(connection, places)
    rest = iter(places)
    while portion := list(islice(rest, PAYLOAD_PAGE)):
        write_payloads(connection, portion)


def _move(connection: psycopg.Connection, shard: int, change_seq: int) -> None:
    connection.execute(_MOVE, (shard, change_seq, None))


_MOVE: Final = """
    INSERT INTO search_progress AS s (shard, change_seq, changed_at) VALUES (%s, %s, %s)
    ON CONFLICT (shard) DO UPDATE
    SET change_seq = excluded.change_seq, scan_target_seq = NULL, scan_key = NULL,
        changed_at = coalesce(excluded.changed_at, s.changed_at)
"""
_BEGIN_SCAN: Final = """
    INSERT INTO search_progress (shard, change_seq, scan_target_seq, scan_key)
    VALUES (%s, %s, %s, %s)
    ON CONFLICT (shard) DO UPDATE
    SET change_seq = excluded.change_seq, scan_target_seq = excluded.scan_target_seq,
        scan_key = excluded.scan_key
"""

"""Keep the search index up to date: follow the change feed in short steps behind the fold.

One session at a time follows; it holds an advisory lock. The feed is kept for some minutes: if the
follower was down for longer, or is starting for the first time, it scans the runs by key, indexes
those with a later number, and continues with the feed from the position at which the scan began.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

import psycopg
from msgspec import Struct
from psycopg import sql

from runfold_storage.checkpoints.change_log import decode_entries

from .index_writer import (
    FOLLOWER,
    LOCK,
    RunKey,
    delete_missing,
    delete_orphans,
    write_payloads,
    write_runs,
)

PAGE: Final = 2000
"""Runs that one step examines."""
PAYLOAD_PAGE: Final = 500
"""Runs whose payloads one step reads."""
_MAX_BYTES: Final = 17 * PAGE
_BEFORE_ALL: Final = UUID(int=0)


class IndexState(Struct, frozen=True):
    """How far the index has come."""

    has_trigrams: bool
    """Whether the trigram indexes exist; without them lists scan for texts."""
    shards: int
    reading_shards: int
    """Shards whose runs are being scanned by key."""
    behind: int
    """Changes of runs that are not indexed yet."""


class Step(NamedTuple):
    """How many runs a step examined, and whether there is more to do."""

    examined: int
    more: bool


def become_follower(connection: psycopg.Connection) -> bool:
    """Try to make this session the one that follows; return whether it is, until it ends."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCK, FOLLOWER)).fetchone()
    return row == (True,)


def follow(connection: psycopg.Connection, page_runs: int = PAGE) -> Step:
    """Index the next changes of every shard, or `page_runs` of each shard that is scanned."""
    behind = connection.execute(
        """
        SELECT p.shard, p.change_seq, coalesce(s.change_seq, 0), s.scan_target_seq, s.scan_key
        FROM positions AS p LEFT JOIN search_progress AS s ON s.shard = p.shard
        WHERE s.scan_target_seq IS NOT NULL OR p.change_seq <> coalesce(s.change_seq, 0)
        ORDER BY p.shard
        """
    ).fetchall()
    examined, more = 0, False
    for shard, now, done, scan_target_seq, scan_key in behind:
        with connection.transaction():
            if scan_target_seq is None:
                # Progress beyond the fold belongs to an earlier life of this database.
                step = _follow(connection, shard, 0 if done > now else done, now)
            else:
                place = (shard, done, scan_target_seq, scan_key)
                step = _scan(connection, *place, page_runs)
        examined, more = examined + step.examined, more or step.more
    return Step(examined, more)


def backfill(connection: psycopg.Connection) -> Step:
    """Index the payloads of runs older than the project's setting, the newest first."""
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
        backfilled = len(page) < PAYLOAD_PAGE
        reached = (page[-1][2], page[-1][1]) if page else (None, None)
        connection.execute(
            """
            UPDATE search_projects SET backfilled = %s, backfill_at = coalesce(%s, backfill_at),
                backfill_run = coalesce(%s, backfill_run)
            WHERE project = %s AND enabled
            """,
            (backfilled, *reached, project),
        )
    return Step(len(page), True)


def delete_disabled(connection: psycopg.Connection) -> Step:
    """Delete the texts of a project whose payload search was disabled."""
    with connection.transaction():
        found = connection.execute(
            "SELECT project FROM search_projects WHERE NOT enabled ORDER BY project LIMIT 1"
        ).fetchone()
        if found is None:
            return Step(0, False)
        deleted = connection.execute(
            """
            DELETE FROM search_payloads AS s USING (
                SELECT shard, run FROM search_payloads WHERE project = %s LIMIT %s
            ) AS g
            WHERE s.shard = g.shard AND s.run = g.run
            """,
            (found[0], PAGE),
        ).rowcount
        if deleted < PAGE:
            connection.execute(
                "DELETE FROM search_projects WHERE project = %s AND NOT enabled", (found[0],)
            )
    return Step(deleted, True)


def flush_gin_pending(connection: psycopg.Connection) -> None:
    """Move GIN's pending entries into the indexes."""
    connection.execute(
        """
        SELECT gin_clean_pending_list(c.oid) FROM pg_class AS c
        WHERE c.oid = to_regclass('search_runs_text_idx')
           OR c.oid = to_regclass('search_payloads_text_idx')
        """
    )


def create_indexes(connection: psycopg.Connection) -> bool:
    """Create the trigram indexes if the migration could not; return False without pg_trgm.

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


def restart_scan(connection: psycopg.Connection) -> None:
    """Scan every run once more; existing texts stay until the scan reaches and corrects them."""
    connection.execute(
        """
        UPDATE search_progress AS s
        SET change_seq = 0, scan_target_seq = p.change_seq, scan_key = %s, changed_at = NULL
        FROM positions AS p WHERE p.shard = s.shard
        """,
        (_BEFORE_ALL,),
    )


def read_state(connection: psycopg.Connection) -> IndexState:
    """Return how far the index has come."""
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
    changed: dict[RunKey, None] = {}
    deleted: dict[RunKey, None] = {}
    reached, at = done, None
    for change_seq, entries, are_deleted, changed_at in rows:
        keys = [UUID(bytes=run) for run, _ in decode_entries(entries)]
        if change_seq - len(keys) > reached:
            break
        (deleted if are_deleted else changed).update(((shard, key), None) for key in keys)
        reached, at = change_seq, changed_at
    if reached == done:  # the feed no longer has the next change
        connection.execute(_SAVE_PROGRESS, (shard, done, now, _BEFORE_ALL, None))
        return Step(0, True)
    _write(connection, list(changed))
    if deleted:
        delete_missing(connection, list(deleted))
    connection.execute(_SAVE_PROGRESS, (shard, reached, None, None, at))
    return Step(len(changed) + len(deleted), reached < now)


def _scan(
    connection: psycopg.Connection,
    shard: int,
    done: int,
    scan_target_seq: int,
    scan_key: UUID,
    page_runs: int,
) -> Step:
    page = connection.execute(
        """
        SELECT run, change_seq > %s FROM runs
        WHERE shard = %s AND run > %s ORDER BY run LIMIT %s
        """,
        (done, shard, scan_key, page_runs),
    ).fetchall()
    _write(connection, [(shard, run) for run, is_later in page if is_later])
    last = page[-1][0] if len(page) == page_runs else None
    delete_orphans(connection, shard, scan_key, last)
    progress = (scan_target_seq, None, None) if last is None else (done, scan_target_seq, last)
    connection.execute(_SAVE_PROGRESS, (shard, *progress, None))
    return Step(len(page), True)


def _write(connection: psycopg.Connection, run_keys: Sequence[RunKey]) -> None:
    if run_keys:
        write_runs(connection, run_keys)
    for start in range(0, len(run_keys), PAYLOAD_PAGE):
        write_payloads(connection, run_keys[start : start + PAYLOAD_PAGE])


_SAVE_PROGRESS: Final = """
    INSERT INTO search_progress AS s (shard, change_seq, scan_target_seq, scan_key, changed_at)
    VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (shard) DO UPDATE
    SET change_seq = excluded.change_seq, scan_target_seq = excluded.scan_target_seq,
        scan_key = excluded.scan_key, changed_at = coalesce(excluded.changed_at, s.changed_at)
"""

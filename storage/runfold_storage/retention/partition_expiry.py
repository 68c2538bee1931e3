"""Expire whole weeks of the ledger: find those that are due, detach their partitions, drop them.

A week is detached CONCURRENTLY, which waits for other transactions but blocks none. Detaching
cannot be given up once it has begun, so it begins only when no open transaction that used the
ledger is older than a second. Then the week is a table `events_…_detached`, which does not change
any more.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

import psycopg
from psycopg import sql

from runfold_storage.ledger.partitions import (
    ensure_weeks,
    existing_partitions,
    first_key,
    partition_name,
    week_of_partition,
)
from runfold_storage.postgres.connections import scalar

from .policies import END, POLICIES, due, shortest_days

LOCK_MS: Final = 200
"""Limit of waiting for a lock that would block others meanwhile."""
DETACH_MS: Final = 10_000
"""Limit of detaching, which waits for readers; only creating a partition waits for it."""
_WEEK: Final = timedelta(days=7)


def weeks_due(connection: psycopg.Connection, shards: Sequence[int], now: datetime) -> list[date]:
    """Return weeks of the ledger whose runs are all due, the oldest first."""
    days = shortest_days(connection, now)
    if days is None:
        return []
    newest = (now - timedelta(days=days)).date()
    weeks = filter(None, map(week_of_partition, existing_partitions(connection)))
    return [
        week
        for week in sorted(weeks)
        if week + _WEEK <= newest and not _has_others(connection, shards, week, now)
    ]


def _has_others(
    connection: psycopg.Connection, shards: Sequence[int], week: date, now: datetime
) -> bool:
    statement = f"""
        SELECT EXISTS (
            SELECT FROM runs AS r {POLICIES.format("r")}
            WHERE r.shard = ANY(%(shards)s::smallint[]) AND r.run >= %(first)s AND r.run < %(end)s
              AND r.payloads_expired_at IS NULL AND NOT {due("payload_days", END)}
        )
    """  # noqa: S608 - made of constants
    first, end = first_key(week), first_key(week + _WEEK)
    wanted = {"shards": list(shards), "first": first, "end": end, "now": now}
    return bool(scalar(connection, statement, wanted))


def detached_name(week: date) -> str:
    """Return the name of the table of a detached week."""
    return f"{partition_name(week)}_detached"


def detach_week(connection: psycopg.Connection, week: date) -> bool:
    """Detach a week without blocking others; False if that is not possible now.

    The connection is in autocommit mode, as detaching takes two transactions of its own.
    """
    name, parted = partition_name(week), detached_name(week)
    table, new = sql.Identifier(name), sql.Identifier(parted)
    state = connection.execute(
        """
        SELECT to_regclass(%s) IS NOT NULL, (
            SELECT i.inhdetachpending FROM pg_inherits AS i
            WHERE i.inhparent = 'events'::regclass AND i.inhrelid = to_regclass(%s)
        )
        """,
        (parted, name),
    ).fetchone()
    assert state is not None
    is_parted, is_pending = state
    if is_parted:
        return True
    if is_pending is False and _is_in_use(connection):
        return False
    connection.execute("SELECT set_config('statement_timeout', %s, false)", (f"{DETACH_MS}ms",))
    try:
        if is_pending is not None:
            # CONCURRENTLY waits for transactions on other weeks without blocking them.
            connection.execute(
                sql.SQL("ALTER TABLE events DETACH PARTITION {} {}").format(
                    table, sql.SQL("FINALIZE" if is_pending else "CONCURRENTLY")
                )
            )
        connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{LOCK_MS}ms",))
        connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(table, new))
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled):
        return False
    finally:
        connection.execute("SET lock_timeout = 0")
        connection.execute("SET statement_timeout = 0")
    return True


def drop_week(connection: psycopg.Connection, week: date) -> None:
    """Drop a detached week."""
    table = sql.Identifier(detached_name(week))
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))


def detached_weeks(connection: psycopg.Connection) -> list[date]:
    """Return weeks that a process began to detach and did not drop, the oldest first."""
    rows = connection.execute(
        """
        SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'events\\_%\\_detached'
        UNION
        SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'events'::regclass AND i.inhdetachpending
        """
    )
    weeks = (week_of_partition(name.removesuffix("_detached")) for (name,) in rows)
    return sorted({week for week in weeks if week is not None})


def reattach_rows(
    connection: psycopg.Connection, shards: Sequence[int], week: date
) -> list[tuple[int, UUID]]:
    """Move runs that arrived between `weeks_due` and the detaching back into the ledger."""
    rows = connection.execute(
        """
        SELECT shard, run FROM runs
        WHERE shard = ANY(%s::smallint[]) AND run >= %s AND run < %s AND payloads_expired_at IS NULL
        """,
        (list(shards), first_key(week), first_key(week + _WEEK)),
    ).fetchall()
    if rows:
        ensure_weeks(connection, [week])
        # In one statement, so that an archive does not find them in both places.
        connection.execute(
            sql.SQL(
                """
                WITH moved AS (
                    DELETE FROM {} AS d
                    WHERE (d.shard, d.run) IN (SELECT * FROM unnest(%s::smallint[], %s::uuid[]))
                    RETURNING d.*
                )
                INSERT INTO events SELECT * FROM moved ON CONFLICT (shard, run, id) DO NOTHING
                """
            ).format(sql.Identifier(detached_name(week))),
            ([shard for shard, _ in rows], [run for _, run in rows]),
        )
    return rows


def _is_in_use(connection: psycopg.Connection) -> bool:
    """Return whether a transaction older than a second has used the ledger."""
    statement = """
        SELECT EXISTS (
            SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
            WHERE l.relation = 'events'::regclass AND l.granted AND a.pid <> pg_backend_pid()
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND a.xact_start < clock_timestamp() - interval '1 second'
        )
    """
    return bool(scalar(connection, statement))

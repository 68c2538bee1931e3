"""What retention takes away: events, then rows, then statistics; each in short steps.

Invariants. A run is marked (`aged_at`) before the first of its events goes, and a marked run takes
no more events: so nobody folds it from a part of them. A worker that has it in memory may still
add to it, rightly, for it knows the rest. A run whose row is to go gets a tombstone first, and the
shard's generation is raised behind it: so no worker has it in memory when the row goes.

Every writing step holds its shard, as everyone does who writes rows. A week is detached
CONCURRENTLY, which waits for others and lets nobody wait; it begins only when nobody has been in
the ledger for long, for once begun it has to be finished.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import psycopg
from psycopg import sql

from .changes import note_gone
from .partitions import (
    ensure_weeks,
    existing_partitions,
    first_key,
    partition_name,
    week_of_partition,
)
from .positions import change_behind, hold_shard
from .retention import END, POLICIES, due, shortest_days
from .rollups import rebuild_days
from .search_writing import forget_payloads, hold_payloads
from .stored_rows import delete_rows

LOCK_MS: Final = 200
"""How long a lock may be waited for that others would have to wait behind."""
DETACH_MS: Final = 10_000
"""How long detaching may wait for those who still read; only making a partition waits for it."""
_WEEK: Final = timedelta(days=7)


class Page(NamedTuple):
    """Runs of a shard in the order of their keys: which of them are due, and the last of all."""

    payloads: list[UUID]
    runs: list[UUID]
    last: bytes | None
    """None: there are no more."""


def read_page(
    connection: psycopg.Connection, shard: int, after: bytes, now: datetime, limit: int
) -> Page:
    """What is due among the next `limit` runs."""
    rows = connection.execute(
        _PAGE, {"shard": shard, "after": UUID(bytes=after), "now": now, "limit": limit}
    ).fetchall()
    return Page(
        [run for run, payload, _ in rows if payload],
        [run for run, _, whole in rows if whole],
        rows[-1][0].bytes if len(rows) == limit else None,
    )


# 'infinity': marked, and its events may not all have gone.
_LEFT: Final = "(r.aged_at IS NULL OR r.aged_at = 'infinity')"
_PAGE: Final = f"""
    WITH page AS (
        SELECT * FROM runs WHERE shard = %(shard)s AND run > %(after)s ORDER BY run LIMIT %(limit)s
    )
    SELECT r.run, {due("payload_days", END)} AND {_LEFT}, {due("run_days", END)}
    FROM page AS r {POLICIES.format("r")} ORDER BY r.run
"""  # noqa: S608 - made of constants


def mark(
    connection: psycopg.Connection, shard: int, runs: Sequence[UUID], now: datetime, *, gone: bool
) -> list[UUID]:
    """Those that (still) are due take no more events; `gone`: their partition goes as a whole."""
    if not runs:
        return []
    with connection.transaction():
        hold_payloads(connection, shard)
        if hold_shard(connection, shard) is None:
            return []
        rows = connection.execute(
            f"""
            UPDATE runs AS r
            SET aged_at = CASE WHEN %(gone)s THEN now() ELSE 'infinity' END
            FROM runs AS r_ {POLICIES.format("r_")}
            WHERE r_.shard = r.shard AND r_.run = r.run
              AND r.shard = %(shard)s AND r.run = ANY(%(runs)s::uuid[])
              AND {due("payload_days", END)}
            RETURNING r.run
            """,  # noqa: S608 - made of constants
            {"gone": gone, "shard": shard, "runs": list(runs), "now": now},
        ).fetchall()
        marked = [run for (run,) in rows]
        forget_payloads(connection, shard, marked)
    return marked


def settle_marks(connection: psycopg.Connection, shard: int, runs: Sequence[UUID]) -> None:
    """Their events have gone."""
    with connection.transaction():
        if hold_shard(connection, shard) is not None:
            connection.execute(
                """
                UPDATE runs SET aged_at = now()
                WHERE shard = %s AND run = ANY(%s::uuid[]) AND aged_at = 'infinity'
                """,
                (shard, list(runs)),
            )


def bury_aged(connection: psycopg.Connection, shard: int, runs: Sequence[UUID]) -> None:
    """Tombstones for runs whose rows are to go: no worker has them in memory from now on."""
    with connection.transaction():
        if hold_shard(connection, shard) is None:
            return
        connection.execute(
            """
            INSERT INTO tombstones (shard, run, aged)
            SELECT %s, run, true FROM unnest(%s::uuid[]) AS gone (run)
            ON CONFLICT (shard, run) DO NOTHING
            """,
            (shard, list(runs)),
        )
        change_behind(connection, shard)
        # Now, and not when the rows go: that raises no generation.
        named = connection.execute(
            """
            SELECT run, coalesce(given_id, run::text) FROM runs
            WHERE shard = %s AND run = ANY(%s::uuid[])
            """,
            (shard, list(runs)),
        )
        note_gone(connection, shard, named.fetchall())


def remove_rows(connection: psycopg.Connection, shard: int, runs: Sequence[UUID]) -> None:
    """Rows go, figures stay; the hours are noted in which figures say more than rows."""
    with connection.transaction():
        if hold_shard(connection, shard) is None:
            return
        connection.execute(
            """
            INSERT INTO aged_hours (project, hour)
            SELECT DISTINCT r.project,
                   to_timestamp(floor(extract(epoch FROM r.created_at) / 3600) * 3600)
            FROM runs AS r WHERE r.shard = %s AND r.run = ANY(%s::uuid[])
            ORDER BY 1, 2
            ON CONFLICT (project, hour) DO NOTHING
            """,
            (shard, list(runs)),
        )
        delete_rows(connection, shard, [run.bytes for run in runs])


def remove_rollups(
    connection: psycopg.Connection, shard: int, now: datetime, limit: int = 2000
) -> int:
    """Statistics of hours that are due, and of which no run is left; returns how many."""
    with connection.transaction():
        if hold_shard(connection, shard) is None:
            return 0
        deleted = connection.execute(
            f"""
            DELETE FROM stats AS d USING (
                SELECT s.workflow, s.project, s.node, s.hour, s.status, s.shard
                FROM stats AS s {POLICIES.format("s")}
                WHERE s.shard = %(shard)s AND {due("stats_days", "s.hour")} AND NOT EXISTS (
                    SELECT FROM runs AS r WHERE r.project = s.project
                      AND r.created_at >= s.hour AND r.created_at < s.hour + interval '1 hour'
                )
                LIMIT %(limit)s
            ) AS g
            WHERE (d.workflow, d.project, d.node, d.hour, d.status, d.shard)
                = (g.workflow, g.project, g.node, g.hour, g.status, g.shard)
            RETURNING (extract(epoch FROM d.hour) * 1000000)::bigint
            """,  # noqa: S608 - made of constants
            {"shard": shard, "now": now, "limit": limit},
        ).fetchall()
        rebuild_days(connection, shard, (hour_us for (hour_us,) in deleted))
    return len(deleted)


def forget_old_marks(connection: psycopg.Connection, before: datetime) -> int:
    """Tombstones of aged runs, once nobody has events of them any more."""
    deleted = connection.execute("DELETE FROM tombstones WHERE aged AND deleted_at < %s", (before,))
    return deleted.rowcount


def weeks_due(connection: psycopg.Connection, shards: Sequence[int], now: datetime) -> list[date]:
    """Weeks of the ledger that have nothing that is not due, the oldest first."""
    days = shortest_days(connection)
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
    row = connection.execute(
        f"""
        SELECT EXISTS (
            SELECT FROM runs AS r {POLICIES.format("r")}
            WHERE r.shard = ANY(%(shards)s::smallint[]) AND r.run >= %(first)s AND r.run < %(end)s
              AND r.aged_at IS NULL AND NOT {due("payload_days", END)}
        )
        """,  # noqa: S608 - made of constants
        {
            "shards": list(shards),
            "first": first_key(week),
            "end": first_key(week + _WEEK),
            "now": now,
        },
    ).fetchone()
    return row == (True,)


class Dropped(NamedTuple):
    """A week that has gone; `kept`: runs that came in the last moment, and were put back."""

    name: str
    kept: list[tuple[int, UUID]]


def drop_week(
    connection: psycopg.Connection,
    shards: Sequence[int],
    week: date,
    before_drop: Callable[[str], None] = lambda _: None,
) -> Dropped | None:
    """Detach a week without anyone having to wait, and drop it; None: not now, try again later.

    `before_drop` is given the name of the table that is detached by then, for archives. The
    connection is in autocommit mode, for detaching goes in two transactions of its own.
    """
    name = partition_name(week)
    parted = f"{name}_detached"
    try:
        _detach(connection, name, parted)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled):
        return None
    kept = _put_back(connection, shards, week, parted)
    before_drop(parted)
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(parted)))
    return Dropped(name, kept)


def detached_weeks(connection: psycopg.Connection) -> list[date]:
    """Weeks that were detached, or nearly, by someone who did not live to drop them."""
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


def _detach(connection: psycopg.Connection, name: str, parted: str) -> None:
    """Afterwards the week is a table of its own, under another name."""
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
        return
    if is_pending is False and _is_in_use(connection):
        raise psycopg.errors.LockNotAvailable("someone has been reading the ledger for long")
    connection.execute("SELECT set_config('statement_timeout', %s, false)", (f"{DETACH_MS}ms",))
    try:
        if is_pending is not None:
            # CONCURRENTLY lets everyone read and write the other weeks, and waits for them.
            connection.execute(
                sql.SQL("ALTER TABLE events DETACH PARTITION {} {}").format(
                    table, sql.SQL("FINALIZE" if is_pending else "CONCURRENTLY")
                )
            )
        connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{LOCK_MS}ms",))
        connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(table, new))
    finally:
        connection.execute("SET lock_timeout = 0")
        connection.execute("SET statement_timeout = 0")


def _is_in_use(connection: psycopg.Connection) -> bool:
    """Whether a transaction that is older than a second has looked at the ledger."""
    row = connection.execute(
        """
        SELECT EXISTS (
            SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
            WHERE l.relation = 'events'::regclass AND l.granted AND a.pid <> pg_backend_pid()
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND a.xact_start < clock_timestamp() - interval '1 second'
        )
        """
    ).fetchone()
    return row == (True,)


def _put_back(
    connection: psycopg.Connection, shards: Sequence[int], week: date, parted: str
) -> list[tuple[int, UUID]]:
    """Runs that were first heard of between the look and the detaching."""
    rows = connection.execute(
        """
        SELECT shard, run FROM runs
        WHERE shard = ANY(%s::smallint[]) AND run >= %s AND run < %s AND aged_at IS NULL
        """,
        (list(shards), first_key(week), first_key(week + _WEEK)),
    ).fetchall()
    if rows:
        ensure_weeks(connection, [week])
        connection.execute(
            sql.SQL(
                """
                INSERT INTO events SELECT * FROM {} AS d
                WHERE (d.shard, d.run) IN (SELECT * FROM unnest(%s::smallint[], %s::uuid[]))
                ON CONFLICT (shard, run, id) DO NOTHING
                """
            ).format(sql.Identifier(parted)),
            ([shard for shard, _ in rows], [run for _, run in rows]),
        )
    return rows


def split(runs: Iterable[UUID], weeks: Iterable[date]) -> tuple[list[UUID], list[UUID]]:
    """Those of these weeks, and the others."""
    spans = [(first_key(week), first_key(week + _WEEK)) for week in weeks]
    within: list[UUID] = []
    others: list[UUID] = []
    for run in runs:
        is_within = any(first <= run < end for first, end in spans)
        (within if is_within else others).append(run)
    return within, others

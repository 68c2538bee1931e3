"""What retention takes away: events, then rows, then statistics; each in short steps.

Invariants. A run is marked (`aged_at`) before the first of its events goes, and a marked run takes
no more events: so nobody folds it from a part of them. The mark raises the shard's generation, so
that no worker has the run in memory any more: whether a late event is taken does not depend on what
a worker remembers. A run whose row is to go gets a tombstone first, with the same effect.

Every writing step holds its shard, as everyone does who writes rows. Which runs are due tells
`due_runs`; weeks of the ledger that go as a whole are for `dropping`.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import psycopg

from runfold_storage.projections.row_store import delete_rows
from runfold_storage.rollups.shard_lock import bump_generation, lock_shard
from runfold_storage.search.index_writer import forget_payloads, hold_payloads

from .policies import END, POLICIES, due


def mark(
    connection: psycopg.Connection, shard: int, runs: Sequence[UUID], now: datetime, *, gone: bool
) -> list[UUID]:
    """Those that (still) are due take no more events; `gone`: their partition goes as a whole."""
    if not runs:
        return []
    with connection.transaction():
        hold_payloads(connection, shard)
        if lock_shard(connection, shard) is None:
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
        if marked:
            bump_generation(connection, shard, marked)
    return marked


def settle_marks(connection: psycopg.Connection, shard: int, runs: Sequence[UUID]) -> None:
    """Their events have gone."""
    with connection.transaction():
        if lock_shard(connection, shard) is not None:
            connection.execute(
                """
                UPDATE runs SET aged_at = now()
                WHERE shard = %s AND run = ANY(%s::uuid[]) AND aged_at = 'infinity'
                """,
                (shard, list(runs)),
            )


def add_expiry_tombstones(connection: psycopg.Connection, shard: int, runs: Sequence[UUID]) -> None:
    """Tombstones for runs whose rows are to go: no worker has them in memory from now on."""
    with connection.transaction():
        if lock_shard(connection, shard) is None:
            return
        connection.execute(
            """
            INSERT INTO tombstones (shard, run, aged)
            SELECT %s, run, true FROM unnest(%s::uuid[]) AS gone (run)
            ON CONFLICT (shard, run) DO NOTHING
            """,
            (shard, list(runs)),
        )
        # Watchers are told now, and not when the rows go: that raises no generation.
        named = connection.execute(
            """
            SELECT gone.run, coalesce(r.given_id, gone.run::text)
            FROM unnest(%s::uuid[]) AS gone (run)
            LEFT JOIN runs AS r ON r.shard = %s AND r.run = gone.run
            """,
            (list(runs), shard),
        ).fetchall()
        bump_generation(connection, shard, *zip(*named, strict=True))


def remove_rows(connection: psycopg.Connection, shard: int, runs: Sequence[UUID]) -> None:
    """Rows go, figures stay; the hours are noted in which figures say more than rows."""
    with connection.transaction():
        if lock_shard(connection, shard) is None:
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


def forget_old_marks(connection: psycopg.Connection, before: datetime) -> int:
    """Tombstones of aged runs, once nobody has events of them any more."""
    deleted = connection.execute("DELETE FROM tombstones WHERE aged AND deleted_at < %s", (before,))
    return deleted.rowcount

"""Expire runs: delete their events, then their rows, in short steps.

Invariants. A run is marked (`payloads_expired_at`) before its first event is deleted, and a marked
run accepts no more events, so no worker folds it from a part of its events. The mark raises the
shard's generation, so whether a late event is accepted does not depend on what a worker has cached.
A run gets a tombstone before its row is deleted, with the same effect.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import psycopg

from runfold_storage.projections.row_store import delete_rows
from runfold_storage.rollups.shard_lock import lock_shard
from runfold_storage.search.index_writer import PAYLOADS, delete_texts, lock_payload_texts

from .policies import END, POLICIES, due


def mark_expired(
    connection: psycopg.Connection, shard: int, runs: Sequence[UUID], now: datetime, *, gone: bool
) -> list[UUID]:
    """Mark the runs that are still due; `gone`: their partition is dropped as a whole."""
    if not runs:
        return []
    with connection.transaction():
        lock_payload_texts(connection, shard)
        with lock_shard(connection, shard) as held:
            rows = connection.execute(
                f"""
                UPDATE runs AS r
                SET payloads_expired_at = CASE WHEN %(gone)s THEN now() ELSE 'infinity' END
                FROM runs AS r_ {POLICIES.format("r_")}
                WHERE r_.shard = r.shard AND r_.run = r.run
                  AND r.shard = %(shard)s AND r.run = ANY(%(runs)s::uuid[])
                  AND {due("payload_days", END)}
                RETURNING r.run
                """,  # noqa: S608 - made of constants
                {"gone": gone, "shard": shard, "runs": list(runs), "now": now},
            ).fetchall()
            marked = [run for (run,) in rows]
            delete_texts(connection, shard, marked, PAYLOADS)
            if marked:
                held.bump_generation(marked)
    return marked


def complete_expiry(connection: psycopg.Connection, shard: int, runs: Sequence[UUID]) -> None:
    """Record that the events of these runs are deleted."""
    with lock_shard(connection, shard):
        connection.execute(
            """
            UPDATE runs SET payloads_expired_at = now()
            WHERE shard = %s AND run = ANY(%s::uuid[]) AND payloads_expired_at = 'infinity'
            """,
            (shard, list(runs)),
        )


def add_expiry_tombstones(connection: psycopg.Connection, shard: int, runs: Sequence[UUID]) -> None:
    """Add tombstones for runs whose rows will be deleted; workers drop these from their caches."""
    with lock_shard(connection, shard) as held:
        connection.execute(
            """
            INSERT INTO tombstones (shard, run, is_expiry)
            SELECT %s, run, true FROM unnest(%s::uuid[]) AS gone (run)
            ON CONFLICT (shard, run) DO NOTHING
            """,
            (shard, list(runs)),
        )
        # Watchers are notified now: deleting the rows later raises no generation.
        named = connection.execute(
            """
            SELECT gone.run, coalesce(r.external_id, gone.run::text)
            FROM unnest(%s::uuid[]) AS gone (run)
            LEFT JOIN runs AS r ON r.shard = %s AND r.run = gone.run
            """,
            (list(runs), shard),
        ).fetchall()
        held.bump_generation(*zip(*named, strict=True))


def delete_expired_rows(connection: psycopg.Connection, shard: int, runs: Sequence[UUID]) -> None:
    """Delete rows but not their statistics; save the hours that cannot be recomputed any more."""
    with lock_shard(connection, shard):
        connection.execute(
            """
            INSERT INTO expired_hours (project, hour)
            SELECT DISTINCT r.project,
                   to_timestamp(floor(extract(epoch FROM r.created_at) / 3600) * 3600)
            FROM runs AS r WHERE r.shard = %s AND r.run = ANY(%s::uuid[])
            ORDER BY 1, 2
            ON CONFLICT (project, hour) DO NOTHING
            """,
            (shard, list(runs)),
        )
        delete_rows(connection, shard, [run.bytes for run in runs])


def delete_old_tombstones(connection: psycopg.Connection, before: datetime) -> int:
    """Delete tombstones of runs that expired before; no runner has events of them any more."""
    deleted = connection.execute(
        "DELETE FROM tombstones WHERE is_expiry AND deleted_at < %s", (before,)
    )
    return deleted.rowcount

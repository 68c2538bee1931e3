"""Restore from the archive: tombstones, events, rows of runs without events, rollups.

Every function may be repeated: data that exists stays as it is.
"""

from collections.abc import Sequence
from uuid import UUID

import psycopg

from runfold.protocol.codec import to_datetime
from runfold_storage.ledger.events import LedgerEvent
from runfold_storage.ledger.partitions import ensure_weeks, week_of
from runfold_storage.postgres.connections import scalar
from runfold_storage.projections.batch_writer import write_projections
from runfold_storage.projections.row_store import NOTHING_STORED, read_rows
from runfold_storage.records.rollup import RollupKey, RollupValues
from runfold_storage.records.rows import Batch, NodeRow, RunRow
from runfold_storage.rollups.deltas import RollupDeltas, add_node, add_run_with_nodes, scope_of
from runfold_storage.rollups.recompute import replace_rollups
from runfold_storage.rollups.shard_lock import lock_shard
from runfold_storage.rollups.store import SAME_KEY, key_columns, unnested_keys


def has_expired_runs(connection: psycopg.Connection) -> bool:
    """Return whether retention deleted rows here, whose statistics still count."""
    statement = """
        SELECT EXISTS (SELECT FROM tombstones WHERE is_expiry)
            OR EXISTS (
                SELECT FROM jobs WHERE kind = 'retention'
                  AND coalesce(result, progress) ->> 'runs' <> '0'
            )
    """
    return bool(scalar(connection, statement))


def is_folded(connection: psycopg.Connection) -> bool:
    """Return whether a worker is folding this database."""
    return bool(scalar(connection, "SELECT EXISTS (SELECT FROM leases WHERE expires_at > now())"))


def restore_tombstones(
    connection: psycopg.Connection, shard: int, deleted: Sequence[tuple[bytes, int]]
) -> None:
    """Add tombstones for deleted runs, (key, time in µs) each."""
    keys = [UUID(bytes=key) for key, _ in deleted]
    with lock_shard(connection, shard) as held:
        connection.execute(
            """
            INSERT INTO tombstones (shard, run, deleted_at, archived)
            SELECT %s, gone.run, gone.at, true
            FROM unnest(%s::uuid[], %s::timestamptz[]) AS gone (run, at)
            ON CONFLICT (shard, run) DO UPDATE SET is_expiry = false, archived = true
            """,
            (shard, keys, [to_datetime(at) for _, at in deleted]),
        )
        if keys:
            held.bump_generation(keys)


def restore_events(
    connection: psycopg.Connection, shard: int, events: Sequence[LedgerEvent]
) -> int:
    """Add events to the ledger; return how many were missing. The caller refolds their runs."""
    keys = [UUID(bytes=key) for key in sorted({event.run for event in events})]
    ensure_weeks(connection, set(map(week_of, keys)))
    with lock_shard(connection, shard) as held:
        inserted = connection.execute(
            """
            INSERT INTO events (type, shard, run, id, at, body)
            SELECT e.type::event_type, %s, e.run, e.id, e.at, e.body
            FROM unnest(%s::uuid[], %s::bigint[], %s::timestamptz[], %s::text[], %s::text[])
                AS e (run, id, at, type, body)
            ON CONFLICT (shard, run, id) DO NOTHING
            """,
            (
                shard,
                [UUID(bytes=event.run) for event in events],
                [event.id for event in events],
                [to_datetime(event.at_us) for event in events],
                [event.type for event in events],
                [event.body for event in events],
            ),
        ).rowcount
        # The ledger has their events again.
        connection.execute(
            """
            UPDATE runs SET payloads_expired_at = NULL
            WHERE shard = %s AND run = ANY(%s::uuid[]) AND payloads_expired_at IS NOT NULL
            """,
            (shard, keys),
        )
        held.bump_generation(keys)
    return inserted


def restore_runs(connection: psycopg.Connection, shard: int, rows: Sequence[RunRow]) -> int:
    """Add missing rows of runs whose events are lost; return how many were missing."""
    with lock_shard(connection, shard) as held:
        keys = [row.run for row in rows]
        known = {key for key, stored in read_rows(connection, shard, keys).items() if stored.row}
        in_ledger = connection.execute(
            "SELECT DISTINCT run FROM events WHERE shard = %s AND run = ANY(%s::uuid[])",
            (shard, [UUID(bytes=key) for key in keys]),
        )
        known |= {run.bytes for (run,) in in_ledger}
        new = [row for row in rows if row.run not in known]
        if not new:
            return 0
        stats: RollupDeltas = {}
        for row in new:
            add_run_with_nodes(stats, row, (), 1)
        numbered = [(row, number) for number, row in enumerate(new, held.change_seq + 1)]
        write_projections(connection, Batch(advances=[], changed_runs=numbered, stats=stats))
        restored = [UUID(bytes=row.run) for row in new]
        connection.execute(
            """
            UPDATE runs SET payloads_expired_at = now()
            WHERE shard = %s AND run = ANY(%s::uuid[])
            """,
            (shard, restored),
        )
        held.bump_generation(restored)
    return len(new)


def restore_nodes(connection: psycopg.Connection, shard: int, rows: Sequence[NodeRow]) -> None:
    """Add missing attempts at nodes of runs whose events are lost."""
    with lock_shard(connection, shard) as held:
        keys = sorted({row.run for row in rows})
        expired = connection.execute(
            """
            SELECT run FROM runs
            WHERE shard = %s AND run = ANY(%s::uuid[]) AND payloads_expired_at IS NOT NULL
            """,
            (shard, [UUID(bytes=key) for key in keys]),
        )
        wanted = {run.bytes for (run,) in expired}
        stored = read_rows(connection, shard, sorted(wanted))
        new: list[NodeRow] = []
        stats: RollupDeltas = {}
        for row in rows:
            of = stored.get(row.run, NOTHING_STORED)
            if row.run in wanted and of.row is not None and (row.node, row.attempt) not in of.nodes:
                new.append(row)
                add_node(stats, scope_of(of.row), row, 1)
        if new:
            changed = [stored[key].row for key in sorted({row.run for row in new})]
            numbered = [(row, n) for n, row in enumerate(changed, held.change_seq + 1) if row]
            batch = Batch(advances=[], changed_runs=numbered, changed_nodes=new, stats=stats)
            write_projections(connection, batch)
            held.bump_generation([UUID(bytes=row.run) for row, _ in numbered])


def restore_rollups(
    connection: psycopg.Connection, shard: int, rollups: dict[RollupKey, RollupValues]
) -> int:
    """Replace rollups that count less than the archived ones; return how many."""
    with lock_shard(connection, shard) as held:
        held.merge_deltas()
        counts = {
            RollupKey(*key): n
            for *key, n in connection.execute(
                f"""
                SELECT s.workflow, s.project, s.node,
                       (extract(epoch FROM s.hour) * 1000000)::bigint, s.status, s.shard, s.n
                FROM {unnested_keys()} JOIN rollups_hourly AS s ON {SAME_KEY}
                """,  # noqa: S608 - made of constants
                key_columns(rollups),
            )
        }
        more = {key: figures for key, figures in rollups.items() if figures.n > counts.get(key, 0)}
        if more:
            replace_rollups(connection, more)
            connection.execute(
                """
                INSERT INTO expired_hours (project, hour)
                SELECT DISTINCT k.project, k.hour
                FROM unnest(%s::text[], %s::timestamptz[]) AS k (project, hour)
                ON CONFLICT (project, hour) DO NOTHING
                """,
                ([key.project for key in more], [to_datetime(key.hour_us) for key in more]),
            )
    return len(more)

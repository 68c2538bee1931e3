"""What PostgreSQL says, in the oracle's words."""

from collections import Counter
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from oracle import SIGNS, Projection, Stat
from runfold_storage.records.rollup import RollupKey
from runfold_storage.records.rows import NodeRow, RunRow
from runfold_storage.rollups.store import merge_deltas, shards_with_pending_deltas

_TIMES = ("created_us", "queued_us", "started_us", "finished_us", "last_event_us", "hour_us")


def read_projection(connection: psycopg.Connection) -> Projection:
    """All rows of the projections, the rollups that count something, and the ledger."""
    runs = {(row[0], row[1]): RunRow(*row) for row in _rows(connection, "runs", RunRow._fields)}
    nodes = {tuple(row[:4]): NodeRow(*row) for row in _rows(connection, "nodes", NodeRow._fields)}
    ledger = {
        (shard, run.bytes, event_id): (at_us, event_type, body)
        for shard, run, event_id, at_us, event_type, body in connection.execute(
            """
            SELECT shard, run, id, (extract(epoch FROM at) * 1000000)::bigint, type::text,
                   body::jsonb
            FROM events
            """
        )
        if event_type not in SIGNS
    }
    return Projection(runs, nodes, _stats(connection), ledger)


def _stats(connection: psycopg.Connection) -> dict[RollupKey, Stat]:
    """The rollups with what is not merged into them yet."""
    sums: dict[RollupKey, Stat] = {}
    fields = tuple(Stat.__dataclass_fields__)[:-1]
    width = len(RollupKey._fields)
    columns = (*RollupKey._fields, *fields, "bins", "bin_counts")
    # In one statement, as a worker may be merging.
    for row in _rows(connection, "rollups_hourly", columns, and_from="pending_rollups"):
        key, figures, bins, counts = RollupKey(*row[:width]), row[width:-2], row[-2], row[-1]
        values = dict(zip(fields, figures, strict=True))
        stat = Stat(**values, bins=dict(zip(bins, counts, strict=True)))
        known = sums.get(key)
        sums[key] = stat if known is None else _sum(known, stat)
    stats = {}
    for key, stat in sums.items():
        if stat.n:
            stats[key] = stat
        else:
            assert stat == Stat(), f"a rollup that counts nothing adds something up: {key} {stat}"
    return stats


def _sum(a: Stat, b: Stat) -> Stat:
    bins = Counter(a.bins)
    bins.update(b.bins)
    sums = {
        name: getattr(a, name) + getattr(b, name)
        for name in Stat.__dataclass_fields__
        if name not in ("duration_min_us", "duration_max_us", "bins")
    }
    shortest = [each.duration_min_us for each in (a, b) if each.duration_min_us is not None]
    longest = [each.duration_max_us for each in (a, b) if each.duration_max_us is not None]
    return Stat(
        **sums,
        duration_min_us=min(shortest, default=None),
        duration_max_us=max(longest, default=None),
        bins={index: n for index, n in bins.items() if n},
    )


def _rows(
    connection: psycopg.Connection,
    table: str,
    fields: tuple[str, ...],
    and_from: str | None = None,
) -> list[tuple[Any, ...]]:
    columns: list[sql.Composable] = []
    for field in fields:
        column: sql.Composable = sql.Identifier(field)
        if field in _TIMES:
            name = "hour" if field == "hour_us" else field.replace("_us", "_at")
            column = sql.SQL("(extract(epoch FROM {}) * 1000000)::bigint").format(
                sql.Identifier(name)
            )
        columns.append(column)
    queries = [
        sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(columns), sql.Identifier(each))
        for each in (table, and_from)
        if each is not None
    ]
    rows = connection.execute(sql.SQL(" UNION ALL ").join(queries)).fetchall()
    return [tuple(v.bytes if isinstance(v, UUID) else v for v in row) for row in rows]


def read_dead_letters(connection: psycopg.Connection) -> list[tuple[int, str, int, str, bytes]]:
    """(shard, frame, ordinal, reason, raw), in the order in which they were read."""
    return connection.execute(
        "SELECT shard, frame, ordinal, reason, raw FROM dead_letters ORDER BY id"
    ).fetchall()


def count_rows(connection: psycopg.Connection, table: str) -> int:
    """How many rows are in it."""
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


def merge_all_deltas(connection: psycopg.Connection) -> None:
    """Leave nothing to be merged into the rollups, as a worker does within a second."""
    for shard in shards_with_pending_deltas(connection):
        merge_deltas(connection, shard)


def delete_all_rows(connection: psycopg.Connection) -> None:
    """Empty what a worker writes; for a few rows, DELETE is faster than TRUNCATE."""
    for table in (
        "events",
        "runs",
        "nodes",
        "rollups_hourly",
        "rollups_daily",
        "rollup_deltas",
        "dead_letters",
        "tombstones",
        "leases",
        "workers",
        "incidents",
        "stream_checkpoints",
        "liveness_marks",
        "changes",
        "rollups_daily",
    ):
        connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
    connection.execute("UPDATE positions SET position = '0-0', consumed = 0, change_seq = 0")

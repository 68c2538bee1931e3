"""What PostgreSQL says, in the oracle's words."""

from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from oracle import SIGNS, Projection, Stat
from runfold_storage.rows import NodeRow, RunRow, StatsKey

_TIMES = ("created_us", "queued_us", "started_us", "finished_us", "seen_us", "hour_us")


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


def _stats(connection: psycopg.Connection) -> dict[StatsKey, Stat]:
    stats = {}
    fields = tuple(Stat.__dataclass_fields__)[:-1]
    width = len(StatsKey._fields)
    for row in _rows(connection, "stats", (*StatsKey._fields, *fields, "bins", "bin_counts")):
        key, figures, bins, counts = StatsKey(*row[:width]), row[width:-2], row[-2], row[-1]
        stat = Stat(*figures, bins=dict(zip(bins, counts, strict=True)))
        if stat.n:
            stats[key] = stat
        else:
            assert stat == Stat(), f"a rollup that counts nothing adds something up: {key} {stat}"
    return stats


def _rows(
    connection: psycopg.Connection, table: str, fields: tuple[str, ...]
) -> list[tuple[Any, ...]]:
    columns = []
    for field in fields:
        column = sql.Identifier(field)
        if field in _TIMES:
            name = "hour" if field == "hour_us" else field.replace("_us", "_at")
            column = sql.SQL("(extract(epoch FROM {}) * 1000000)::bigint").format(
                sql.Identifier(name)
            )
        columns.append(column)
    query = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(columns), sql.Identifier(table))
    rows = connection.execute(query).fetchall()
    return [tuple(v.bytes if isinstance(v, UUID) else v for v in row) for row in rows]


def dead_letters(connection: psycopg.Connection) -> list[tuple[int, str, int, str, bytes]]:
    """(shard, frame, ordinal, reason, raw), in the order in which they were read."""
    return connection.execute(
        "SELECT shard, frame, ordinal, reason, raw FROM dead_letters ORDER BY id"
    ).fetchall()


def count(connection: psycopg.Connection, table: str) -> int:
    """How many rows are in it."""
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


def truncate(connection: psycopg.Connection) -> None:
    """Empty what a worker writes; for a few rows, DELETE is faster than TRUNCATE."""
    for table in (
        "events",
        "runs",
        "nodes",
        "stats",
        "stats_days",
        "dead_letters",
        "tombstones",
        "leases",
        "workers",
        "incidents",
        "sightings",
        "pulses",
        "changes",
        "stats_days",
    ):
        connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
    connection.execute("UPDATE positions SET position = '0-0', consumed = 0, feed_seq = 0")

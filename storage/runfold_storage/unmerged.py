"""Differences that wait to be merged into the rollups.

A row of a rollup costs a small batch as much as a row of a run does, and the next batch changes the
same ones again. So small batches append their differences as they are, a row for each shard, and
what came in a quarter of a second is merged at once, beside the fold. Nobody is told less: whoever
reads rollups adds `unmerged_stats`, in the same snapshot.

`stats_merged` says up to where a shard's differences are merged, so that no reader looks at rows
that are gone: an old snapshot may keep those for long. Who merges holds its row; a batch does not
wait for it. Whoever holds a shard (`positions.hold_shard`) finds everything merged.
"""

from typing import Final

import psycopg

from .rollups import STATS
from .upserts import Rows


def append_differences(connection: psycopg.Connection, differences: Rows) -> None:
    """In the transaction of their batch, which takes nothing back (`extremes`)."""
    connection.execute(_APPEND, (STATS.array(connection, differences),))


def waiting_shards(connection: psycopg.Connection) -> list[int]:
    """Those of which something waits."""
    return [shard for (shard,) in connection.execute(_WAITING)]


def merge_differences(connection: psycopg.Connection, shard: int) -> None:
    """Merge what waits of a shard, unless someone is at it; in a transaction of its own."""
    with connection.transaction():
        _merge(connection, shard, connection.execute(_HOLD + " SKIP LOCKED", (shard,)).fetchone())


def merge_shard(connection: psycopg.Connection, shard: int) -> None:
    """Merge what waits of a shard, in the transaction that is open, and keep others from it."""
    _merge(connection, shard, connection.execute(_HOLD, (shard,)).fetchone())


def _merge(connection: psycopg.Connection, shard: int, held: tuple[int] | None) -> None:
    # A statement of its own, so that it sees what the last one who held the shard has done.
    if held is not None and connection.execute(_WAITS, (shard, *held)).fetchone() is not None:
        connection.execute(STATS.merging, (shard,))


_APPEND: Final = """
    INSERT INTO stats_differences (shard, differences)
    SELECT d.shard, array_agg(d) FROM unnest(%b::stats_difference[]) AS d GROUP BY d.shard
"""
_HOLD: Final = "SELECT id FROM stats_merged WHERE shard = %s FOR UPDATE"
_WAITS: Final = "SELECT id FROM stats_differences WHERE shard = %s AND id > %s LIMIT 1"
_WAITING: Final = """
    SELECT shard FROM stats_merged AS m
    WHERE EXISTS (SELECT FROM stats_differences AS s WHERE s.shard = m.shard AND s.id > m.id)
    ORDER BY shard
"""

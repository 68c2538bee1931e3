"""Differences that wait to be merged into the rollups.

A row of a rollup costs a small batch as much as a row of a run does, and the next batch changes the
same ones again. So small batches append their differences as they are, a row for each shard, and
what came in half a second is merged at once, beside the fold. Nobody is told less: whoever
reads rollups adds `pending_rollups`, in the same snapshot.

`rollup_delta_cursors` says up to where a shard's differences are merged, so that no reader looks at
rows that are gone: an old snapshot may keep those for long. Who merges holds its row, which no
batch that appends waits for. Invariant: rollups are what they were at some moment, never less than
nothing. So whoever adds to them directly (large batches, durations that are taken back, whoever
holds a shard) merges first what waits of the same shards.
"""

from collections.abc import Sequence
from typing import Final

import psycopg

from runfold_storage.postgres.bulk_write import Rows

from .store import STATS


def append_deltas(connection: psycopg.Connection, differences: Rows) -> None:
    """In the transaction of their batch, which takes nothing back (`extremes`)."""
    connection.execute(APPEND, (STATS.array(connection, differences),))


def waiting_shards(connection: psycopg.Connection) -> list[int]:
    """Those of which something waits."""
    return [shard for (shard,) in connection.execute(_WAITING)]


def merge_deltas(connection: psycopg.Connection, shard: int) -> None:
    """Merge what waits of a shard, unless someone is at it: a transaction of its own."""
    connection.execute(STATS.merging, ([shard],))


def merge_shards(connection: psycopg.Connection, shards: Sequence[int]) -> None:
    """Merge what waits of these, in the transaction that is open, and keep others from them."""
    connection.execute(_HOLD, (shards,))
    # A statement of its own, so that it sees what the last one who held a shard has done.
    waiting = connection.execute(_WAITING_OF, (shards,)).fetchall()
    if waiting:
        connection.execute(STATS.merging, ([shard for (shard,) in waiting],))


APPEND: Final = """
    INSERT INTO rollup_deltas (shard, deltas)
    SELECT d.shard, array_agg(d) FROM unnest(%b::rollup_delta[]) AS d GROUP BY d.shard
"""
_HOLD: Final = """
    SELECT shard FROM rollup_delta_cursors WHERE shard = ANY(%s::smallint[])
    ORDER BY shard FOR UPDATE
"""
_WAITING: Final = """
    SELECT shard FROM rollup_delta_cursors AS m
    WHERE EXISTS (SELECT FROM rollup_deltas AS s WHERE s.shard = m.shard AND s.id > m.id)
"""
_WAITING_OF: Final = f"{_WAITING} AND shard = ANY(%s::smallint[])"

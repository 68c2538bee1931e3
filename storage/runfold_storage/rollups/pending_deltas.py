"""Deltas that are not merged into the rollups yet.

For a small batch, a row of a rollup costs as much as a row of a run, and the next batch changes the
same rollups again. So small batches append their deltas, one row per shard, and a worker merges
half a second's worth at once. Readers add the view `pending_rollups` in the same snapshot, so they
miss nothing.

`rollup_delta_cursors` says up to which delta a shard is merged, so that no reader scans deleted
rows, which an old snapshot may keep for long. Merging locks the shard's cursor, which no appending
batch waits for. Invariant: a rollup is always what it was at some moment, never negative. So every
writer that changes rollups directly first merges what is pending of its shards.
"""

from collections.abc import Sequence
from typing import Final

import psycopg

from runfold_storage.postgres.bulk_write import Rows

from .store import ROLLUPS


def append_deltas(connection: psycopg.Connection, differences: Rows) -> None:
    """Append the deltas of a batch, which remove no durations, in its transaction."""
    connection.execute(INSERT_DELTAS, (ROLLUPS.array(connection, differences),))


def shards_with_pending_deltas(connection: psycopg.Connection) -> list[int]:
    """Return the shards that have pending deltas."""
    return [shard for (shard,) in connection.execute(_WAITING)]


def merge_deltas(connection: psycopg.Connection, shard: int) -> None:
    """Merge the pending deltas of a shard in a transaction of its own, unless it is locked."""
    connection.execute(ROLLUPS.merging, ([shard],))


def merge_shards(connection: psycopg.Connection, shards: Sequence[int]) -> None:
    """Merge the pending deltas of these shards in the open transaction, and lock their cursors."""
    connection.execute(_HOLD, (shards,))
    # A separate statement, so that it sees what the previous holder of the lock committed.
    waiting = connection.execute(_WAITING_OF, (shards,)).fetchall()
    if waiting:
        connection.execute(ROLLUPS.merging, ([shard for (shard,) in waiting],))


INSERT_DELTAS: Final = """
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

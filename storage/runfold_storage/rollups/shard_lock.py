"""The lock on a shard, and the generation that invalidates the cache of its worker."""

from collections.abc import Sequence
from uuid import UUID

import psycopg

from runfold_storage.checkpoints.change_log import EXTERNAL
from runfold_storage.checkpoints.positions import Position

from .pending_deltas import merge_shards


def lock_shard(connection: psycopg.Connection, shard: int) -> Position | None:
    """Lock a shard's checkpoint until the transaction ends; None if there is no such shard.

    Every process that writes rows of a shard, or corrects its rollups, takes this lock. So rows
    that are read after it do not change, and no batch of the shard is committed meanwhile. Pending
    deltas of the shard are merged.
    """
    row = connection.execute(
        """
        SELECT position, generation, consumed, change_seq FROM positions
        WHERE shard = %s FOR UPDATE
        """,
        (shard,),
    ).fetchone()
    if row is None:
        return None
    merge_shards(connection, [shard])
    return Position(*row)


def bump_generation(
    connection: psycopg.Connection,
    shard: int,
    runs: Sequence[UUID] = (),
    gone: Sequence[str] | None = None,
) -> None:
    """Raise the generation of a locked shard after changing these runs outside the fold.

    The worker drops them from its cache, and watchers are notified; each run takes the next number
    of the change log. `gone` has the ids of deleted runs. Without `runs`, the worker drops its
    cache of the whole shard.
    """
    connection.execute(
        """
        WITH moved AS (
            UPDATE positions
            SET generation = generation + 1, change_seq = change_seq + %(n)s
            WHERE shard = %(shard)s
            RETURNING shard, change_seq
        )
        INSERT INTO changes (shard, change_seq, runs, deleted_ids)
        SELECT shard, change_seq, %(runs)s, %(gone)s FROM moved WHERE %(n)s > 0
        """,
        {
            "n": len(runs),
            "shard": shard,
            "runs": b"".join(EXTERNAL + run.bytes for run in runs),
            "gone": None if gone is None else list(gone),
        },
    )

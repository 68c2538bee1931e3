"""The lock on a shard's checkpoint, and the generation that tells its worker of a change."""

from collections.abc import Sequence
from uuid import UUID

import psycopg

from runfold_storage.checkpoints.change_log import EXTERNAL
from runfold_storage.checkpoints.positions import Position

from .pending_deltas import merge_shards


def lock_shard(connection: psycopg.Connection, shard: int) -> Position | None:
    """Lock a shard's checkpoint until the transaction ends; None if there is no such shard.

    Whoever writes rows of a shard, or corrects its statistics, holds this row, so that what is read
    after it stays so, and no batch of the shard is committed in between. All that waits of its
    statistics is merged.
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
    """Raise the generation of a shard that is held, for these runs were changed behind the fold.

    Its worker forgets them, and watchers are told; each run takes the next number of the feed.
    `gone`: the ids of runs that were deleted. Without `runs` the worker forgets the whole shard.
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

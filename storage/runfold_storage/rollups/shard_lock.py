"""The lock on a shard, and the generation that invalidates the cache of its worker."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple
from uuid import UUID

import psycopg

from runfold_storage.checkpoints.change_log import EXTERNAL

from .store import merge_shards


class LockedShard(NamedTuple):
    """A shard that no other process changes; `change_seq` is the last number of its change log."""

    connection: psycopg.Connection
    shard: int
    change_seq: int

    def merge_deltas(self) -> None:
        """Merge its pending deltas; required before rollups are read to be replaced."""
        merge_shards(self.connection, [self.shard])

    def bump_generation(self, runs: Sequence[UUID], deleted: Sequence[str] | None = None) -> None:
        """Raise the generation after changing these runs outside the fold.

        The worker drops them from its cache, and watchers are notified; each run takes the next
        number of the change log. `deleted` has the ids of deleted runs.
        """
        self.connection.execute(
            """
            WITH moved AS (
                UPDATE positions
                SET generation = generation + 1, change_seq = change_seq + %(n)s
                WHERE shard = %(shard)s
                RETURNING shard, change_seq
            )
            INSERT INTO changes (shard, change_seq, runs, deleted_ids)
            SELECT shard, change_seq, %(runs)s, %(deleted)s FROM moved WHERE %(n)s > 0
            """,
            {
                "n": len(runs),
                "shard": self.shard,
                "runs": b"".join(EXTERNAL + run.bytes for run in runs),
                "deleted": None if deleted is None else list(deleted),
            },
        )


@contextmanager
def lock_shard(connection: psycopg.Connection, shard: int) -> Iterator[LockedShard]:
    """Open a transaction that locks a shard's checkpoint; raise `LookupError` if there is none.

    Every process that writes rows of a shard, or corrects its rollups, takes this lock. So rows
    that are read after it do not change, and no batch of the shard is committed meanwhile.
    """
    with connection.transaction():
        row = connection.execute(
            "SELECT change_seq FROM positions WHERE shard = %s FOR UPDATE", (shard,)
        ).fetchone()
        if row is None:
            raise LookupError(f"there is no shard {shard}")
        yield LockedShard(connection, shard, row[0])

"""How far each shard has come, and the compare-and-set that makes the fold exact.

A batch moves its shards' positions in the transaction that writes their effects, and only from
where its worker believed them to be. So effects are applied once, whoever else is at work.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import psycopg

from runfold.codec import to_datetime

from .errors import PositionMoved
from .rows import Advance


class Position(NamedTuple):
    """A shard's checkpoint: `position` is the last stream id whose effects are committed."""

    position: str
    generation: int
    consumed: int
    feed_seq: int


def ensure_shards(connection: psycopg.Connection, shards: int) -> None:
    """Make the checkpoint rows of a deployment with this many shards; repeating is harmless."""
    connection.execute(
        """
        INSERT INTO positions (shard) SELECT generate_series(0, %s - 1)
        ON CONFLICT (shard) DO NOTHING
        """,
        (shards,),
    )


def count_shards(connection: psycopg.Connection) -> int:
    """How many shards the deployment has."""
    row = connection.execute("SELECT count(*) FROM positions").fetchone()
    assert row is not None
    return int(row[0])


def load_positions(
    connection: psycopg.Connection, shards: Iterable[int] | None = None
) -> dict[int, Position]:
    """The checkpoints of these shards, by default of all."""
    rows = connection.execute(
        """
        SELECT shard, position, generation, consumed, feed_seq
        FROM positions
        WHERE shard = ANY(%(shards)s::int[]) OR %(shards)s::int[] IS NULL
        ORDER BY shard
        """,
        {"shards": None if shards is None else list(shards)},
    )
    return {shard: Position(*checkpoint) for shard, *checkpoint in rows}


def advance_positions(connection: psycopg.Connection, advances: Sequence[Advance]) -> None:
    """Move each shard on, or raise `PositionMoved`; the row lock is held until the commit."""
    for step in sorted(advances):
        moved = connection.execute(
            """
            UPDATE positions
            SET position = %s, consumed = consumed + %s, feed_seq = %s, updated_at = now(),
                folded_at = coalesce(greatest(folded_at, %s), folded_at)
            WHERE shard = %s AND position = %s AND generation = %s
            """,
            (
                step.position,
                step.consumed,
                step.feed_seq,
                None if step.folded_us is None else to_datetime(step.folded_us),
                step.shard,
                step.believed,
                step.generation,
            ),
        )
        if moved.rowcount != 1:
            raise PositionMoved(step.shard, step.believed)

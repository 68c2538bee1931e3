"""How far each shard has come, and the compare-and-set that makes the fold exact.

A batch moves its shards' positions in the transaction that writes their effects, and only from
where its worker believed them to be. So effects are applied once, whoever else is at work.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from uuid import UUID

import psycopg

from .errors import PositionMoved
from .fields import int2_array, int8_array, text_array
from .partitions import OWN_IDS
from .rows import Advance
from .unmerged import merge_shards
from .upserts import Binary


class Position(NamedTuple):
    """A shard's checkpoint: `position` is the last stream id whose effects are committed."""

    position: str
    generation: int
    consumed: int
    feed_seq: int


def ensure_shards(connection: psycopg.Connection, shards: int) -> None:
    """Make the checkpoint rows of a deployment with this many shards; repeating is harmless."""
    # Only those that are missing: ON CONFLICT waits for whoever is just moving a row, and a worker
    # that is frozen in a transaction would keep all others from starting.
    connection.execute(
        """
        INSERT INTO positions (shard)
        SELECT generate_series(0, %s - 1) EXCEPT SELECT shard FROM positions
        ON CONFLICT (shard) DO NOTHING
        """,
        (shards,),
    )
    connection.execute(
        """
        INSERT INTO stats_merged (shard)
        SELECT shard FROM positions EXCEPT SELECT shard FROM stats_merged
        ON CONFLICT (shard) DO NOTHING
        """
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


def newest_runs(connection: psycopg.Connection, shards: Iterable[int]) -> dict[int, bytes]:
    """The newest key that any table knows in each of these shards, callers' own ids apart.

    UUIDv7 keys are ordered by time; without a run, the key of all zeros.
    """
    rows = connection.execute(
        """
        SELECT s.shard, coalesce(greatest(
            (SELECT r.run FROM runs AS r
             WHERE r.shard = s.shard AND r.run < %(own_ids)s ORDER BY r.run DESC LIMIT 1),
            (SELECT t.run FROM tombstones AS t
             WHERE t.shard = s.shard AND t.run < %(own_ids)s ORDER BY t.run DESC LIMIT 1)
        ), %(none)s)
        FROM unnest(%(shards)s::smallint[]) AS s (shard)
        """,
        {"shards": list(shards), "own_ids": OWN_IDS, "none": UUID(int=0)},
    )
    return {shard: run.bytes for shard, run in rows}


def advance_positions(connection: psycopg.Connection, advances: Sequence[Advance]) -> None:
    """Move each shard on, or raise `PositionMoved`; row locks are held until the commit.

    They are taken in the order of the shards, so that two workers cannot deadlock.
    """
    moved = connection.execute(ADVANCE, [Binary(each) for each in steps_of(advances)])
    reached = {shard for (shard,) in moved}
    for step in advances:
        if step.shard not in reached:
            raise PositionMoved(step.shard, step.believed)


def steps_of(advances: Sequence[Advance]) -> list[bytes]:
    """The parameters of `ADVANCE`, in binary form."""
    return [
        int2_array([step.shard for step in advances]),
        text_array([step.believed for step in advances]),
        int8_array([step.generation for step in advances]),
        text_array([step.position for step in advances]),
        int8_array([step.consumed for step in advances]),
        int8_array([step.feed_seq for step in advances]),
        int8_array([step.folded_us for step in advances]),
    ]


def hold_shard(connection: psycopg.Connection, shard: int) -> Position | None:
    """Lock a shard's checkpoint until the transaction ends; None if there is no such shard.

    Whoever writes rows of a shard, or corrects its statistics, holds this row, so that what is read
    after it stays so, and no batch of the shard is committed in between. All that waits of its
    statistics is merged.
    """
    row = connection.execute(
        """
        SELECT position, generation, consumed, feed_seq FROM positions
        WHERE shard = %s FOR UPDATE
        """,
        (shard,),
    ).fetchone()
    if row is None:
        return None
    merge_shards(connection, [shard])
    return Position(*row)


def change_behind(connection: psycopg.Connection, shard: int, changed: int = 0) -> None:
    """Runs of a shard that is held were changed: whoever remembers them has to forget them.

    `changed` rows have taken the next numbers.
    """
    connection.execute(
        """
        UPDATE positions SET generation = generation + 1, feed_seq = feed_seq + %s WHERE shard = %s
        """,
        (changed, shard),
    )


ADVANCE: Final = """
    WITH steps AS MATERIALIZED (
        SELECT p.shard, s.believed, s.generation, s.position, s.consumed, s.feed_seq,
            to_timestamp(s.folded_us / 1e6) AS folded_at
        FROM unnest(
            %b::smallint[], %b::text[], %b::bigint[], %b::text[], %b::bigint[], %b::bigint[],
            %b::bigint[]
        ) AS s (shard, believed, generation, position, consumed, feed_seq, folded_us)
        JOIN positions AS p ON p.shard = s.shard
        ORDER BY p.shard
        FOR UPDATE OF p
    )
    UPDATE positions AS p
    SET position = s.position, consumed = p.consumed + s.consumed, feed_seq = s.feed_seq,
        updated_at = now(),
        -- An event that claims to be of the future must not hide how far the fold is behind.
        folded_at = CASE WHEN coalesce(p.folded_at, s.folded_at) IS NOT NULL
            THEN least(greatest(p.folded_at, s.folded_at), now()) END
    FROM steps AS s
    WHERE p.shard = s.shard AND p.position = s.believed AND p.generation = s.generation
    RETURNING p.shard
"""

"""Positions of the shards, and the compare-and-set that makes the fold exact."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

import psycopg

from runfold_storage.errors import PositionMoved
from runfold_storage.ledger.partitions import OWN_IDS
from runfold_storage.postgres.binary_format import int2_array, int8_array, text_array
from runfold_storage.postgres.bulk_write import Binary
from runfold_storage.postgres.connections import scalar
from runfold_storage.records.rows import PositionUpdate

from .change_log import EXTERNAL, decode_entries

MAX_EXTERNAL_CHANGES: Final = 20_000
"""The most changes that a worker reads; beyond, it drops its cache of the whole shard."""


class Position(NamedTuple):
    """A shard's checkpoint: `position` is the last stream id whose effects are committed."""

    position: str
    generation: int
    consumed: int
    change_seq: int


def ensure_shards(connection: psycopg.Connection, shards: int) -> None:
    """Create the missing checkpoint rows of a deployment with this many shards."""
    # Only missing rows: ON CONFLICT waits for a transaction that is moving a row, so a worker that
    # is frozen in a transaction would keep all others from starting.
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
        INSERT INTO rollup_delta_cursors (shard)
        SELECT shard FROM positions EXCEPT SELECT shard FROM rollup_delta_cursors
        ON CONFLICT (shard) DO NOTHING
        """
    )


def count_shards(connection: psycopg.Connection) -> int:
    """Return the number of shards of the deployment."""
    return int(scalar(connection, "SELECT count(*) FROM positions"))


def load_positions(
    connection: psycopg.Connection, shards: Iterable[int] | None = None
) -> dict[int, Position]:
    """Return the checkpoints of these shards, by default of all."""
    wanted = None if shards is None else list(shards)
    condition = "%(shards)s::int[] IS NULL OR shard = ANY(%(shards)s::int[])"
    rows = connection.execute(f"{_SELECT} WHERE {condition} ORDER BY shard", {"shards": wanted})
    return {shard: Position(*checkpoint) for shard, *checkpoint in rows}


def newest_runs(connection: psycopg.Connection, shards: Iterable[int]) -> dict[int, bytes]:
    """Return the newest run key in each of these shards, apart from ids that callers chose.

    UUIDv7 keys are ordered by time. A shard without runs has the key of all zeros.
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


def advance_positions(connection: psycopg.Connection, advances: Sequence[PositionUpdate]) -> None:
    """Advance each shard, or raise `PositionMoved`; row locks are held until the commit.

    Locks are taken in the order of the shards, so that two workers cannot deadlock.
    """
    moved = connection.execute(ADVANCE, [Binary(each) for each in advance_parameters(advances)])
    reached = {shard for (shard,) in moved}
    for step in advances:
        if step.shard not in reached:
            raise PositionMoved(step.shard, step.expected)


def advance_parameters(advances: Sequence[PositionUpdate]) -> list[bytes]:
    """Return the parameters of `ADVANCE`, in binary format."""
    return [
        int2_array([step.shard for step in advances]),
        text_array([step.expected for step in advances]),
        int8_array([step.generation for step in advances]),
        text_array([step.position for step in advances]),
        int8_array([step.consumed for step in advances]),
        int8_array([step.change_seq for step in advances]),
        int8_array([step.folded_us for step in advances]),
    ]


def count_added_frames(connection: psycopg.Connection) -> tuple[int, int]:
    """Count the frames that the streams had up to a second ago: all, and those not folded yet."""
    statement = """
        SELECT coalesce(sum(s.entries_added), 0)::bigint,
               coalesce(sum(greatest(s.entries_added - p.consumed, 0)), 0)::bigint
        FROM positions AS p JOIN stream_checkpoints AS s ON s.shard = p.shard
    """
    added, pending = connection.execute(statement).fetchone() or (0, 0)
    return added, pending


def lock_positions(connection: psycopg.Connection, shards: Iterable[int]) -> dict[int, Position]:
    """Lock the checkpoints of these shards until the transaction ends, in the order of batches."""
    locked = f"{_SELECT} WHERE shard = ANY(%s::int[]) ORDER BY shard FOR UPDATE"
    rows = connection.execute(locked, (list(shards),))
    return {shard: Position(*checkpoint) for shard, *checkpoint in rows}


def load_external_changes(
    connection: psycopg.Connection, known: Mapping[int, Position], found: Mapping[int, Position]
) -> dict[int, set[bytes] | None]:
    """Return the keys of runs that other processes changed between two checkpoints, by shard.

    Both checkpoints have the same position. None where the change log does not have all of them: it
    was deleted by now, it is too long, or a generation was raised without naming runs.
    """
    rows_of: dict[int, list[tuple[int, bytes]]] = {shard: [] for shard in found}
    for shard, change_seq, runs in connection.execute(
        """
        SELECT c.shard, c.change_seq, c.runs
        FROM unnest(%s::smallint[], %s::bigint[], %s::bigint[]) AS k (shard, known, found)
        JOIN changes AS c
          ON c.shard = k.shard AND c.change_seq > k.known AND c.change_seq <= k.found
        WHERE k.found - k.known <= %s
        ORDER BY c.shard, c.change_seq
        """,
        (
            list(found),
            [known[shard].change_seq for shard in found],
            [position.change_seq for position in found.values()],
            MAX_EXTERNAL_CHANGES,
        ),
    ):
        rows_of[shard].append((change_seq, runs))
    return {
        shard: external_changes(rows, known[shard], found[shard]) for shard, rows in rows_of.items()
    }


def external_changes(
    rows: Iterable[tuple[int, bytes]], known: Position, found: Position
) -> set[bytes] | None:
    """Do the same for one shard, from its rows of `changes` (`change_seq`, `runs`) in order."""
    generation, change_seq = known.generation, known.change_seq
    changed: set[bytes] = set()
    for number, runs in rows:
        entries = decode_entries(runs)
        if number - len(entries) != change_seq:
            return None
        change_seq = number
        generation += runs.startswith(EXTERNAL)
        changed.update(run for run, _ in entries)
    if (generation, change_seq) != (found.generation, found.change_seq):
        return None
    return changed


_SELECT: Final = "SELECT shard, position, generation, consumed, change_seq FROM positions"

ADVANCE: Final = """
    WITH steps AS MATERIALIZED (
        SELECT p.shard, s.expected, s.generation, s.position, s.consumed, s.change_seq,
            to_timestamp(s.folded_us / 1e6) AS folded_at
        FROM unnest(
            %b::smallint[], %b::text[], %b::bigint[], %b::text[], %b::bigint[], %b::bigint[],
            %b::bigint[]
        ) AS s (shard, expected, generation, position, consumed, change_seq, folded_us)
        JOIN positions AS p ON p.shard = s.shard
        ORDER BY p.shard
        FOR UPDATE OF p
    )
    UPDATE positions AS p
    SET position = s.position, consumed = p.consumed + s.consumed, change_seq = s.change_seq,
        updated_at = now(),
        -- An event with a time in the future must not hide the lag of the fold.
        folded_at = CASE WHEN coalesce(p.folded_at, s.folded_at) IS NOT NULL
            THEN least(greatest(p.folded_at, s.folded_at), now()) END
    FROM steps AS s
    WHERE p.shard = s.shard AND p.position = s.expected AND p.generation = s.generation
    RETURNING p.shard
"""

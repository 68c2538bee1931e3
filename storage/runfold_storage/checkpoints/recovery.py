"""Correct checkpoints of streams that lost frames, or that were replaced.

These functions move a checkpoint only from where the caller expects it, as batches do, and count
the incident in the same transaction, so it is counted once. The caller must not have read frames of
the shard that are not committed; they would count as lost.
"""

from collections.abc import Mapping

import psycopg

from runfold_storage.postgres.connections import scalar

from .incidents import raise_incident
from .positions import Position
from .streams import Stream


def save_stream_checkpoints(connection: psycopg.Connection, streams: Mapping[int, Stream]) -> None:
    """Save how many frames these streams have received."""
    connection.execute(
        """
        INSERT INTO stream_checkpoints AS s (shard, entries_added)
        SELECT * FROM unnest(%s::smallint[], %s::bigint[]) AS seen (shard, entries_added)
        ORDER BY shard
        ON CONFLICT (shard) DO UPDATE SET entries_added = excluded.entries_added
        WHERE s.entries_added < excluded.entries_added
        """,
        (list(streams), [stream.added for stream in streams.values()]),
    )


def last_stream_checkpoint(connection: psycopg.Connection, shard: int) -> int | None:
    """Return how many frames the stream had received when it was last read; None if it was never
    read, or not since it was replaced."""
    statement = "SELECT entries_added FROM stream_checkpoints WHERE shard = %s"
    added: int | None = scalar(connection, statement, (shard,))
    return added


def skip_lost_frames(
    connection: psycopg.Connection, shard: int, expected: Position, stream: Stream
) -> None:
    """Account for frames that left the stream unread, unless another worker was faster.

    Where no frame is left, the position moves to the stream's end, so that readers that wait for
    that position do not wait for ever.
    """
    reached = expected.position if stream.length else stream.last
    with connection.transaction():
        if _move(connection, shard, expected, reached, stream.removed):
            lost = stream.removed - expected.consumed
            raise_incident(connection, "frames_lost", lost, shard=shard)


def reset_position(
    connection: psycopg.Connection, shard: int, expected: Position, stream: Stream, folded: int
) -> None:
    """Fold the whole stream from its beginning, unless another worker moved the position.

    `folded` of its frames are among those that were consumed.

    New frames may have ids below the old position if a clock was ahead, and would be skipped
    otherwise. Event ids identify what was folded before, so folding it again is harmless.
    """
    beginning = "0-0" if stream.length else stream.last  # readers may wait for it
    with connection.transaction():
        if _move(connection, shard, expected, beginning, stream.removed):
            _count_replaced(connection, shard, expected.consumed - folded)


def accept_stream(
    connection: psycopg.Connection, shard: int, expected: Position, stream: Stream
) -> None:
    """Count the incident of a stream that was restored from a copy newer than the position."""
    with connection.transaction():
        if _move(connection, shard, expected, expected.position, expected.consumed):
            _count_replaced(connection, shard, stream.added)


def _move(
    connection: psycopg.Connection, shard: int, expected: Position, position: str, consumed: int
) -> bool:
    moved = connection.execute(
        """
        UPDATE positions SET position = %s, consumed = %s
        WHERE shard = %s AND position = %s AND consumed = %s
        """,
        (position, consumed, shard, expected.position, expected.consumed),
    )
    return moved.rowcount == 1


def _count_replaced(connection: psycopg.Connection, shard: int, accounted: int) -> None:
    """Count the incidents; `accounted` recorded frames are folded or present, the rest lost."""
    raise_incident(connection, "stream_replaced", shard=shard)
    lost = (last_stream_checkpoint(connection, shard) or 0) - accounted
    if lost > 0:
        raise_incident(connection, "frames_lost", lost, shard=shard)
    connection.execute("DELETE FROM stream_checkpoints WHERE shard = %s", (shard,))

"""Checkpoints brought in line with a stream that has lost frames, or is another one than it was.

They move a checkpoint only from where the caller believed it to be, as batches do, and raise the
incident in the same transaction: so it is counted once, whoever else looks. A caller may have
nothing of the shard on its way, or frames that it has read would count as lost.

After a flush or a restore, what was seen of the stream before is the only witness of what it had:
`sightings`.
"""

from collections.abc import Mapping

import psycopg

from .incidents import raise_incident
from .positions import Position
from .streams import Stream


def save_stream_checkpoints(connection: psycopg.Connection, streams: Mapping[int, Stream]) -> None:
    """Remember how many frames these streams had been given."""
    connection.execute(
        """
        INSERT INTO sightings AS s (shard, added)
        SELECT * FROM unnest(%s::smallint[], %s::bigint[]) AS seen (shard, added) ORDER BY shard
        ON CONFLICT (shard) DO UPDATE SET added = excluded.added WHERE s.added < excluded.added
        """,
        (list(streams), [stream.added for stream in streams.values()]),
    )


def last_stream_checkpoint(connection: psycopg.Connection, shard: int) -> int | None:
    """How many frames the stream had been given when last looked at; None: never, or not since it
    was replaced."""
    row = connection.execute("SELECT added FROM sightings WHERE shard = %s", (shard,)).fetchone()
    return None if row is None else int(row[0])


def skip_lost_frames(
    connection: psycopg.Connection, shard: int, believed: Position, stream: Stream
) -> bool:
    """Account for frames that left the stream unread; False: someone else was there first.

    Where none is left, the position moves to the end, so that who waits for that does not wait for
    ever.
    """
    reached = believed.position if stream.length else stream.last
    with connection.transaction():
        if not _move(connection, shard, believed, reached, stream.removed):
            return False
        lost = stream.removed - believed.consumed
        raise_incident(connection, "frames_lost", lost, shard=shard)
        return True


def reset_position(
    connection: psycopg.Connection,
    shard: int,
    believed: Position,
    stream: Stream,
    folded: int = 0,
) -> bool:
    """Fold everything that the stream has, from its beginning; False: someone else moved it.

    `folded` of its frames are among those that were consumed.

    New frames may have ids below the old position, when a clock was ahead, and would be skipped
    otherwise. What had been folded is known by its event ids, so that folding it again is harmless.
    """
    beginning = "0-0" if stream.length else stream.last  # which may be waited for
    with connection.transaction():
        if not _move(connection, shard, believed, beginning, stream.removed):
            return False
        _count_replaced(connection, shard, believed.consumed - folded)
        return True


def accept_stream(
    connection: psycopg.Connection, shard: int, believed: Position, stream: Stream
) -> None:
    """The stream was restored from a copy that is newer than the position: only count it."""
    with connection.transaction():
        if _move(connection, shard, believed, believed.position, believed.consumed):
            _count_replaced(connection, shard, stream.added)


def _move(
    connection: psycopg.Connection, shard: int, believed: Position, position: str, consumed: int
) -> bool:
    moved = connection.execute(
        """
        UPDATE positions SET position = %s, consumed = %s
        WHERE shard = %s AND position = %s AND consumed = %s
        """,
        (position, consumed, shard, believed.position, believed.consumed),
    )
    return moved.rowcount == 1


def _count_replaced(connection: psycopg.Connection, shard: int, accounted: int) -> None:
    """Of the frames that were seen so many are folded, or still there: the others are lost."""
    raise_incident(connection, "stream_replaced", shard=shard)
    lost = (last_stream_checkpoint(connection, shard) or 0) - accounted
    if lost > 0:
        raise_incident(connection, "frames_lost", lost, shard=shard)
    connection.execute("DELETE FROM sightings WHERE shard = %s", (shard,))

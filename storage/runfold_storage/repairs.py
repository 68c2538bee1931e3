"""Checkpoints brought in line with a stream that has lost frames, or is another one than it was.

Both move a checkpoint only from where the caller believed it to be, as batches do, and raise the
incident in the same transaction: so it is counted once, whoever else looks. A caller may have
nothing of the shard on its way, or frames that it has read would count as lost.
"""

import psycopg

from .incidents import raise_incident
from .lag import Stream
from .positions import Position


def skip_lost(
    connection: psycopg.Connection, shard: int, believed: Position, stream: Stream
) -> int:
    """Account for frames that left the stream unread; returns how many.

    Where none is left, the position moves to the end, so that who waits for that does not wait for
    ever.
    """
    position = believed.position if stream.length else stream.last
    with connection.transaction():
        row = connection.execute(
            """
            UPDATE positions SET consumed = %(removed)s, position = %(reached)s
            WHERE shard = %(shard)s AND position = %(position)s AND consumed = %(consumed)s
              AND consumed < %(removed)s
            """,
            {
                "shard": shard,
                "position": believed.position,
                "reached": position,
                "consumed": believed.consumed,
                "removed": stream.removed,
            },
        )
        if not row.rowcount:
            return 0
        lost = stream.removed - believed.consumed
        raise_incident(connection, "frames_lost", lost, shard=shard)
        return lost


def start_over(
    connection: psycopg.Connection, shard: int, believed: Position, stream: Stream, *, lost: int
) -> bool:
    """Fold everything that the stream has, from its beginning; False: someone else moved it.

    New frames may have ids below the old position, when a clock was ahead, and would be skipped
    otherwise. What had been folded is known by its event ids, so that folding it again is harmless.
    `lost`: the frames known to be gone that nobody had folded.
    """
    with connection.transaction():
        row = connection.execute(
            """
            UPDATE positions SET position = '0-0', consumed = %(removed)s
            WHERE shard = %(shard)s AND position = %(position)s AND consumed = %(consumed)s
            """,
            {
                "shard": shard,
                "position": believed.position,
                "consumed": believed.consumed,
                "removed": stream.removed,
            },
        )
        if not row.rowcount:
            return False
        raise_incident(connection, "stream_replaced", shard=shard)
        if lost:
            raise_incident(connection, "frames_lost", lost, shard=shard)
        return True

"""Recovers the checkpoint of a stream that lost frames or was replaced.

Everything that is still there is folded. Lost frames are counted as exactly as Redis allows:
`entries-added` is exact for frames that were trimmed or deleted; after a flush or a restore, the
count of the last check before it is used, which is at most a second old.
"""

import logging

import psycopg
import redis

from runfold_storage.checkpoints.positions import Position, load_positions
from runfold_storage.checkpoints.recovery import (
    accept_stream,
    last_stream_checkpoint,
    reset_position,
    save_stream_checkpoints,
    skip_lost_frames,
)
from runfold_storage.checkpoints.streams import (
    Stream,
    count_frames_after,
    is_replaced,
    mark_stream,
    order,
    read_streams,
    trim,
)

log = logging.getLogger(__name__)


def recover_stream(client: redis.Redis, connection: psycopg.Connection, shard: int) -> bool:
    """Correct a shard's checkpoint if it does not match its stream.

    Call this only when no batch of the shard is in flight. Return whether the position may have
    moved, so that the shard has to be loaded again.
    """
    position = load_positions(connection, [shard])[shard]
    stream = read_streams(client, [shard])[0][shard]
    seen = last_stream_checkpoint(connection, shard)
    # A worker that saved a checkpoint has marked the stream too.
    is_flushed = seen is not None and not stream.is_marked
    if is_flushed or is_replaced(stream, position):
        log.warning(
            "stream was flushed or restored, folding it from its beginning",
            extra={"shard": shard, "position": position.position, "ends_at": stream.last},
        )
        folded = _count_folded(client, shard, position, stream) if is_flushed else 0
        reset_position(connection, shard, position, stream, folded)
        mark_stream(client, shard)
        return True
    if seen is not None and stream.added < seen:
        accept_stream(connection, shard, position, stream)
    mark_stream(client, shard)
    save_stream_checkpoints(connection, {shard: stream})
    if stream.removed > position.consumed:
        skip_lost_frames(connection, shard, position, stream)
        return True
    trim(client, shard, position.position)  # a predecessor may have died between commit and trim
    return False


def _count_folded(client: redis.Redis, shard: int, position: Position, stream: Stream) -> int:
    """Return how many frames of a replaced stream were folded before it was noticed."""
    if order(stream.last) < order(position.position):  # the position is of the old stream
        return 0
    return stream.added - count_frames_after(client, shard, position.position, stream.last)

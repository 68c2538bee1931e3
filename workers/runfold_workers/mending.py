"""What to do about a stream that lost frames, or is another one than it was.

Everything that is still there is folded, and what is not is counted as exactly as Redis can tell:
`entries-added` is exact for frames that were trimmed or deleted; after a restore, the last look at
the stream before it tells, and there is one a second.
"""

import logging

import psycopg
import redis

from runfold_storage.lag import is_replaced, read_streams
from runfold_storage.positions import load_positions
from runfold_storage.repairs import go_on, last_sighting, skip_lost, start_over

from .publishing import trim

log = logging.getLogger(__name__)


def mend(client: redis.Redis, connection: psycopg.Connection, shard: int) -> bool:
    """Bring a shard's checkpoint in line with its stream, if need be.

    Only when nothing of the shard is on its way. Returns whether the position may have moved, so
    that the shard has to be taken up anew.
    """
    position = load_positions(connection, [shard])[shard]
    stream = read_streams(client, [shard])[0][shard]
    if is_replaced(stream, position):
        log.warning(
            "stream was flushed or restored, folding it from its beginning",
            extra={"shard": shard, "position": position.position, "ends_at": stream.last},
        )
        start_over(connection, shard, position, stream)
        return True
    if stream.added < last_sighting(connection, shard):
        go_on(connection, shard, position, stream)
    if stream.removed > position.consumed:
        skip_lost(connection, shard, position, stream)
        return True
    trim(client, shard, position.position)  # a predecessor may have died between commit and trim
    return False

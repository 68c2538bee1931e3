"""What to do about a stream that lost frames, or is another one than it was.

Everything that is still there is folded, and what is not is counted as exactly as Redis can tell:
`entries-added` is, for frames that were trimmed or deleted; after a restore, what was seen of the
stream before is the only witness, and a look a second is how often it is seen.
"""

import logging
from collections.abc import Mapping

import psycopg
import redis

from runfold_storage.incidents import raise_incident
from runfold_storage.lag import Stream, is_replaced, read_streams
from runfold_storage.positions import load_positions
from runfold_storage.repairs import skip_lost, start_over

log = logging.getLogger(__name__)


def mend(
    client: redis.Redis,
    connection: psycopg.Connection,
    shard: int,
    seen: Mapping[int, Stream],
) -> bool:
    """Bring a shard's checkpoint in line with its stream, if need be.

    Only when nothing of the shard is on its way. `seen`: the streams when last looked at. Returns
    whether the checkpoint was moved, so that the shard has to be taken up anew.
    """
    position = load_positions(connection, [shard])[shard]
    stream = read_streams(client, [shard])[0][shard]
    added_before = seen[shard].added if shard in seen else 0
    if is_replaced(stream, position):
        lost = max(0, added_before - position.consumed)
        moved = start_over(connection, shard, position, stream, lost=lost)
        if moved:
            log.warning(
                "stream was flushed or restored, folding it from its beginning",
                extra={"shard": shard, "position": position.position, "ends_at": stream.last},
            )
        return moved
    if stream.added < added_before:  # a copy from after our position
        with connection.transaction():
            raise_incident(connection, "stream_replaced", shard=shard)
            raise_incident(connection, "frames_lost", added_before - stream.added, shard=shard)
    if stream.removed > position.consumed:
        return bool(skip_lost(connection, shard, position, stream)) and not stream.length
    return False

"""After a commit: watchers are woken, and what is committed leaves its stream.

Both may be lost when a worker dies right then. Watchers look for themselves a little later, and
whoever takes the shard over trims it up to its position.
"""

import msgspec
import redis

from runfold import streams
from runfold.crashing import crash_point
from runfold_storage.lag import order
from runfold_storage.rows import Batch


def publish_and_trim(client: redis.Redis, batch: Batch) -> None:
    """Tell watchers how far the feed goes now, and let go of the frames that are committed."""
    with client.pipeline(transaction=False) as pipeline:
        reached = {str(step.shard): step.feed_seq for step in batch.advances}
        pipeline.publish(streams.CHANGES_CHANNEL, msgspec.json.encode(reached))
        crash_point("after_publish", pipeline.execute)
        for step in batch.advances:
            trim(pipeline, step.shard, step.position)
        pipeline.execute()
        crash_point("after_trim")


def trim(client: redis.Redis, shard: int, position: str) -> None:
    """Let go of the frames up to this position, which is committed.

    Exactly: an approximate trim leaves up to a hundred committed frames behind.
    """
    milliseconds, sequence = order(position)
    client.xtrim(
        streams.stream_key(shard), minid=f"{milliseconds}-{sequence + 1}", approximate=False
    )

"""After a commit: watchers are told, and what is committed leaves its stream.

Both may be lost when a worker dies right then. Watchers look for themselves a little later, and
whoever takes the shard over trims it up to its position.
"""

import redis

from runfold.crash_points import crash_point
from runfold_storage.change_feed.notifications import encode_notification
from runfold_storage.checkpoints.streams import trim
from runfold_storage.records.rows import Batch


class Publisher:
    """Of one worker, which knows whether anybody listened the last time."""

    def __init__(self, client: redis.Redis, channel: str) -> None:
        self._client = client
        self._channel = channel
        self._is_heard = False

    def publish_and_trim(self, batch: Batch) -> None:
        """Announce a batch that is committed, and let go of its frames.

        Its rows only go to those who listen: they can read them, should they come just now.
        """
        with self._client.pipeline(transaction=False) as pipeline:
            message = encode_notification(batch, with_runs=self._is_heard)
            pipeline.publish(self._channel, message)
            crash_point("after_publish", pipeline.execute)
            for step in batch.advances:
                trim(pipeline, step.shard, step.position)
            heard_by, *_ = pipeline.execute()
            crash_point("after_trim")
        self._is_heard = heard_by > 0

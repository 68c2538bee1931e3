"""After a commit: notify subscribers and trim the committed frames.

Both may be lost when a worker dies here. Subscribers poll a little later, and the shard's next
owner trims its stream up to the position.
"""

import redis

from runfold.crash_points import crash_point
from runfold_storage.change_feed.notifications import encode_notification
from runfold_storage.checkpoints.streams import trim
from runfold_storage.records.rows import Batch


class Publisher:
    """Publishes batches; it adds rows to notifications only while the channel has subscribers."""

    def __init__(self, client: redis.Redis, channel: str) -> None:
        self._client = client
        self._channel = channel
        self._has_subscribers = False

    def publish_and_trim(self, batch: Batch) -> None:
        """Publish a committed batch and trim its frames.

        The first notification that a new subscriber gets has no rows; it reads them itself.
        """
        with self._client.pipeline(transaction=False) as pipeline:
            message = encode_notification(batch, with_runs=self._has_subscribers)
            pipeline.publish(self._channel, message)
            crash_point("after_publish", pipeline.execute)
            for step in batch.advances:
                trim(pipeline, step.shard, step.position)
            subscribers, *_ = pipeline.execute()
            crash_point("after_trim")
        self._has_subscribers = subscribers > 0

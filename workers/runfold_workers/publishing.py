"""After a commit: watchers are told what has changed, and what is committed leaves its stream.

Both may be lost when a worker dies right then. Watchers learn of the next change, and whoever takes
the shard over trims it up to its position.
"""

import json
from typing import Final
from uuid import UUID

import redis

from runfold import streams
from runfold.crashing import crash_point
from runfold_storage.lag import order
from runfold_storage.rows import Batch

_MOST_NAMED: Final = 1000
"""Runs that one message to watchers names; beyond it they look for themselves."""


def publish_and_trim(client: redis.Redis, batch: Batch) -> None:
    """Tell watchers which runs have changed, and let go of the frames that are committed."""
    changed: dict[int, list[str]] = {}
    for row, _ in batch.runs:
        named = changed.setdefault(row.shard, [])
        if len(named) < _MOST_NAMED:
            named.append(row.given_id or str(UUID(bytes=row.run)))
    with client.pipeline(transaction=False) as pipeline:
        for step in batch.advances:
            message = {"feed_seq": step.feed_seq, "runs": changed.get(step.shard, [])}
            pipeline.publish(streams.changes_channel(step.shard), json.dumps(message))
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

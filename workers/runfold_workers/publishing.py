"""After the commit: tell watchers what has changed, and let go of the frames.

A worker that dies before it has told and trimmed leaves frames, which whoever takes the shard up
trims, and watchers that learn with the next change.
"""

import json
from typing import Final
from uuid import UUID

import redis

from runfold.streams import changes_channel, stream_key
from runfold_storage.rows import Batch

_MOST_NAMED: Final = 1000
"""Runs that one message to watchers names; beyond it they look for themselves."""


def publish_and_trim(client: redis.Redis, batch: Batch) -> None:
    """Tell watchers which runs have changed, and let go of the frames that are committed."""
    pipeline = client.pipeline(transaction=False)
    changed: dict[int, list[str]] = {}
    for row, _ in batch.runs:
        named = changed.setdefault(row.shard, [])
        if len(named) < _MOST_NAMED:
            named.append(row.given_id or str(UUID(bytes=row.run)))
    for step in batch.advances:
        message = {"feed_seq": step.feed_seq, "runs": changed.get(step.shard, [])}
        pipeline.publish(changes_channel(step.shard), json.dumps(message))
        trim(pipeline, step.shard, step.position)
    pipeline.execute()


def trim(client: redis.Redis, shard: int, position: str) -> None:
    """Let go of a shard's frames up to this position, which is committed."""
    # Exactly: an approximate trim leaves up to a hundred committed frames behind.
    client.xtrim(stream_key(shard), minid=_after(position), approximate=False)


def _after(position: str) -> str:
    """The id that follows: trimming keeps entries from the given id on."""
    milliseconds, _, sequence = position.partition("-")
    return f"{milliseconds}-{int(sequence) + 1}"

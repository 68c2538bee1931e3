"""Frames in the streams of Redis, with the types that redis-py's stubs do not have."""

from collections.abc import Mapping
from typing import cast

import redis

from runfold.protocol.streams import stream_key


def add_frame(
    client: redis.Redis, shard: int, fields: Mapping[bytes, bytes], *, entry_id: str = "*"
) -> str:
    """Append a frame to the stream of a shard; return the id that it got."""
    added = client.xadd(stream_key(shard), dict(fields.items()), id=entry_id)
    assert isinstance(added, bytes)
    return added.decode()


def read_frames(client: redis.Redis, key: str | bytes) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the ids and fields of all frames of a stream, oldest first."""
    return cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(key))

"""Frames out of Redis: plain XREAD from the committed positions.

A consumer group would put the acknowledgement into a second system. The number of frames asked
for adapts so that a batch holds about as many events as one transaction takes well, whether a
frame holds one event or a thousand.
"""

from collections.abc import Mapping
from typing import Any, Final

import redis

from runfold.streams import stream_key

from .arrivals import StreamEntry

BLOCK_MS: Final = 1000
"""How long to wait for a first frame: a client's socket may time out after five seconds."""
BUSY_BLOCK_MS: Final = 20
"""The same while a batch is on its way, whose outcome must not wait."""
TARGET_BYTES: Final = 4 * 1024 * 1024
_MOST_FRAMES: Final = 4000


class Reader:
    """Reads the next frames of some shards."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._frame_bytes = float(TARGET_BYTES)  # until the first frames tell

    def read(self, positions: Mapping[int, str], *, block_ms: int = BLOCK_MS) -> list[StreamEntry]:
        """The frames behind these positions, in order within each shard; empty after the wait."""
        shards = {stream_key(shard).encode(): shard for shard in positions}
        count = int(min(max(TARGET_BYTES / self._frame_bytes / len(shards), 1), _MOST_FRAMES))
        answer: Any = self._client.xread(
            {key: positions[shard] for key, shard in shards.items()}, count=count, block=block_ms
        )
        entries = [
            StreamEntry(shards[key], entry_id.decode(), fields)
            for key, frames in _pairs(answer)
            for entry_id, fields in frames
        ]
        if entries:
            size = sum(sum(map(len, entry.fields.values())) for entry in entries)
            self._frame_bytes += (size / len(entries) - self._frame_bytes) / 2
        return entries


def _pairs(answer: Any) -> list[tuple[bytes, Any]]:
    """RESP2 answers with a list of pairs, RESP3 with a map of lists."""
    if isinstance(answer, dict):
        return [(key, frames[0]) for key, frames in answer.items()]
    return list(answer or [])

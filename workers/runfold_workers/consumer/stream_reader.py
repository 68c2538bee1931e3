"""Reads frames by plain XREAD from the committed positions.

A consumer group would keep acknowledgements in a second system. The number of frames per read
adapts, so that a batch holds about `TARGET_BYTES` whether a frame has one event or a thousand.
"""

import time
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any, Final

import redis

from runfold.protocol.frames import size_of
from runfold.protocol.streams import stream_key
from runfold_workers.fold.frame_decoder import StreamEntry
from runfold_workers.metrics import Metrics

BLOCK_MS: Final = 1000
"""How long to wait for a first frame; the client's socket times out after five seconds."""
BUSY_BLOCK_MS: Final = 20
"""The same while a batch is being written, whose result must not wait."""
TARGET_BYTES: Final = 5 * 1024 * 1024
"""Of frames, unpacked, a batch: some 12,000 events. Decoded and encoded, it takes several times as
much memory, and two batches are in memory at a time."""
_MOST_FRAMES: Final = 1000
"""In one reply: frames of the SDK hold at most 256 KiB."""


class StreamReader:
    """Reads the next frames of some shards."""

    def __init__(self, client: redis.Redis, metrics: Metrics | None = None) -> None:
        self._client = client
        self._phases = (metrics or Metrics()).phases
        # Without redis-py's own callback, which makes a dictionary of every entry.
        client.set_response_callback("XREAD", lambda answer, **_: answer)
        self._frame_bytes = TARGET_BYTES / 8  # until the first frames are measured
        self._has_all = True
        """Whether Redis had no more frames, so that the next read waits for new ones."""

    def read(self, positions: Mapping[int, str], *, block_ms: int = BLOCK_MS) -> list[StreamEntry]:
        """Return the frames after these positions, in order within each shard; [] on timeout."""
        began = time.perf_counter()
        waited_s = 0.0
        shards = {stream_key(shard).encode(): shard for shard in positions}
        after = {key: positions[shard] for key, shard in shards.items()}
        entries: list[StreamEntry] = []
        room = float(TARGET_BYTES)
        while room > 0:
            count = int(min(room / self._frame_bytes, _MOST_FRAMES) / len(shards)) or 1
            wait_ms = None if entries else block_ms
            answer: Any = self._client.xread(after, count=count, block=wait_ms)  # type: ignore[arg-type]  # dict is invariant
            if self._has_all and not entries:
                waited_s = time.perf_counter() - began
            read = [
                StreamEntry(shards[key], entry_id.decode(), _fields(values))
                for key, frames in _pairs(answer)
                for entry_id, values in frames
            ]
            self._has_all = len(read) < count
            if not read:
                break
            size = sum(size_of(entry.fields) for entry in read)
            self._frame_bytes += (size / len(read) - self._frame_bytes) / 2
            entries += read
            room -= size
            if self._has_all or room < self._frame_bytes * len(shards) / 2:
                break  # no shard has more, or more would exceed the target by far
            after |= {stream_key(entry.shard).encode(): entry.id for entry in read}
        entries.sort(key=attrgetter("shard"))  # stable: in order within each
        if waited_s:
            self._phases["wait"].observe(waited_s)
        if entries:
            self._phases["read"].observe(time.perf_counter() - began - waited_s)
        return entries


def _pairs(answer: Any) -> Iterable[tuple[bytes, Any]]:
    """Return (stream, entries) pairs: RESP2 has a list of them, RESP3 a map."""
    return answer.items() if isinstance(answer, dict) else answer or ()


def _fields(values: Any) -> dict[bytes, bytes]:
    """Return the fields of an entry, which alternate with their values."""
    if len(values) == 2:
        return {values[0]: values[1]}
    return dict(zip(values[::2], values[1::2], strict=True))

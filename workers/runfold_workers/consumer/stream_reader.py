"""Frames out of Redis: plain XREAD from the committed positions.

A consumer group would put the acknowledgement into a second system. What is read at a time adapts
so that a batch holds about as many bytes as one transaction takes well, whether a frame holds one
event or a thousand; no single answer of Redis can be large enough to matter.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import redis

from runfold.protocol.frames import size_of
from runfold.protocol.streams import stream_key
from runfold_workers.fold.frame_decoder import StreamEntry
from runfold_workers.metrics import Metrics

BLOCK_MS: Final = 1000
"""How long to wait for a first frame: a client's socket may time out after five seconds."""
BUSY_BLOCK_MS: Final = 20
"""The same while a batch is on its way, whose outcome must not wait."""
TARGET_BYTES: Final = 8 * 1024 * 1024
"""Of frames, unpacked, a batch: some 20,000 events. Decoded and encoded, it takes several times as
much memory, and two batches are in memory at a time."""
_MOST_FRAMES: Final = 1000
"""In one answer: frames of the SDK hold at most 256 KiB."""


class StreamReader:
    """Reads the next frames of some shards."""

    def __init__(self, client: redis.Redis, metrics: Metrics | None = None) -> None:
        self._client = client
        self._phases = (metrics or Metrics()).phases
        # redis-py would make a dictionary of every entry, and then we another thing of that.
        client.set_response_callback("XREAD", _as_it_comes)
        self._frame_bytes = TARGET_BYTES / 8  # until the first frames tell
        self._has_all = True
        """Whether Redis had no more: then the time of the next answer is one of waiting for it."""

    def read(self, positions: Mapping[int, str], *, block_ms: int = BLOCK_MS) -> list[StreamEntry]:
        """The frames behind these positions, in order within each shard; empty after the wait."""
        began = time.perf_counter()
        waited_s = 0.0
        shards = {stream_key(shard).encode(): shard for shard in positions}
        behind = {key: positions[shard] for key, shard in shards.items()}
        entries: list[StreamEntry] = []
        room = float(TARGET_BYTES)
        while room > 0:
            count = int(min(room / self._frame_bytes, _MOST_FRAMES) / len(shards)) or 1
            wait_ms = None if entries else block_ms
            answer: Any = self._client.xread(behind, count=count, block=wait_ms)  # type: ignore[arg-type]  # dict is invariant
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
                break  # no shard has more, or it would be far too much
            behind |= {stream_key(entry.shard).encode(): entry.id for entry in read}
        entries.sort(key=_shard_of)  # stable: in order within each
        if waited_s:
            self._phases["wait"].observe(waited_s)
        if entries:
            self._phases["read"].observe(time.perf_counter() - began - waited_s)
        return entries


def _shard_of(entry: StreamEntry) -> int:
    return entry.shard


def _as_it_comes(answer: Any, **_options: Any) -> Any:
    return answer


def _pairs(answer: Any) -> Iterable[tuple[bytes, Any]]:
    """RESP2 answers with a list of pairs, RESP3 with a map."""
    return answer.items() if isinstance(answer, dict) else answer or ()


def _fields(values: Any) -> dict[bytes, bytes]:
    """Names and values in turns."""
    if len(values) == 2:
        return {values[0]: values[1]}
    return dict(zip(values[::2], values[1::2], strict=True))

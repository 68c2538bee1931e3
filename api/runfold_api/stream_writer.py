"""Appending events to the streams: they are safe, as far as Redis is, once `append` returns.

When it fails, some of the events may be in their streams all the same. That does no harm: every
event has its id by then, so whoever sends them again makes duplicates, which the fold knows.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import redis
import zstandard

from runfold.codec import Envelope
from runfold.frames import encode_packed_frame
from runfold.streams import agree_on_shards, agreed_shards, connect, shard_of, stream_key
from runfold_storage.history import History
from runfold_storage.lag import Lag, look

FRAME_EVENTS: Final = 5000
FRAME_BYTES: Final = 4 * 1024 * 1024
_COMPRESSION: Final = 1


class StreamWriter:
    """May be shared by threads; opens no connection before it has to."""

    def __init__(self, url: str, *, shards: int | None, threads: int, timeout_s: float) -> None:
        self._redis = connect(url, timeout_s=timeout_s)
        self._wanted_shards = shards
        self._shards = 0
        # Of its own, so that slow reads cannot keep writes waiting for a thread.
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="runfold-write")

    def append(self, envelopes: Sequence[Envelope]) -> dict[str, str]:
        """Put events into their streams; returns the id of the last frame of each shard."""
        frames = list(_frames(envelopes, self.shards()))
        try:
            return self._send(frames)
        except redis.TimeoutError:
            raise
        except redis.ConnectionError:
            # A pooled connection does not notice that Redis was restarted until it is used.
            return self._send(frames)

    def shards(self) -> int:
        """The deployment's number; raises `ShardsDiffer` if this process was told another."""
        if not self._shards:
            self._shards = agree_on_shards(self._redis, self._wanted_shards)
        return self._shards

    def lags(self, history: History) -> dict[int, Lag]:
        """How far each shard lies behind; raises what either server raises."""
        return look(self._redis, history.positions, agreed_shards(self._redis) or 0)[1]

    def ping(self) -> None:
        """Raise a `redis.RedisError` unless Redis answers."""
        self._redis.ping()

    def close(self) -> None:
        """Wait for what is under way, then close the connections."""
        self.executor.shutdown()
        self._redis.close()

    def _send(self, frames: list[tuple[int, dict[bytes, bytes]]]) -> dict[str, str]:
        with self._redis.pipeline(transaction=False) as pipeline:
            for shard, fields in frames:
                pipeline.xadd(stream_key(shard), fields)  # type: ignore[arg-type]  # its dict is invariant
            replies = pipeline.execute()
        return {
            str(shard): position.decode()
            for (shard, _), position in zip(frames, replies, strict=True)
        }


def _frames(envelopes: Sequence[Envelope], shards: int) -> Iterator[tuple[int, dict[bytes, bytes]]]:
    """The frames of each shard, in the order of the events."""
    compressor = zstandard.ZstdCompressor(level=_COMPRESSION)
    by_shard: dict[int, list[Envelope]] = {}
    for envelope in envelopes:
        by_shard.setdefault(shard_of(envelope.run, shards), []).append(envelope)
    for shard, own in sorted(by_shard.items()):
        for chunk in _chunks(own):
            yield shard, encode_packed_frame(chunk, compressor)


def _chunks(envelopes: list[Envelope]) -> Iterator[list[Envelope]]:
    chunk: list[Envelope] = []
    size = 0
    for envelope in envelopes:
        if len(chunk) == FRAME_EVENTS or size > FRAME_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(envelope)
        size += len(envelope.body)
    yield chunk

"""Writes events to the streams; once `append` returns, they are as durable as Redis is."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import redis

from runfold.delivery.frame_writer import FrameSender
from runfold.protocol.codec import Envelope
from runfold.protocol.streams import agree_on_shards, agreed_shards, connect
from runfold_storage.checkpoints.streams import Lag, read_lags
from runfold_storage.history import History


class StreamWriter:
    """Thread-safe; it connects when it is first used."""

    def __init__(self, url: str, *, shards: int | None, threads: int, timeout_s: float) -> None:
        self._redis = connect(url, timeout_s=timeout_s)
        self._wanted_shards = shards
        self._shards = 0
        # Its own executor, so that slow reads cannot block writes.
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="runfold-write")

    def append(self, envelopes: Sequence[Envelope]) -> dict[str, str]:
        """Append events to their streams; return the id of the last frame of each shard."""
        try:
            return self._send(envelopes)
        except redis.ConnectionError:
            # A pooled connection notices a restart of Redis only when it is used.
            return self._send(envelopes)

    def shards(self) -> int:
        """Return the deployment's number of shards; raise `ShardsDiffer` if the settings differ."""
        if not self._shards:
            self._shards = agree_on_shards(self._redis, self._wanted_shards)
        return self._shards

    def lags(self, history: History) -> dict[int, Lag]:
        """Return the lag of each shard; raise `StorageError` or `redis.RedisError`."""
        return read_lags(self._redis, history.positions, agreed_shards(self._redis) or 0)[1]

    def check(self) -> None:
        """Raise `redis.RedisError` unless Redis answers, and `ShardsDiffer` as `shards` does."""
        self._redis.ping()
        self.shards()

    def close(self) -> None:
        """Wait for pending writes, then close the connections."""
        self.executor.shutdown()
        self._redis.close()

    def _send(self, envelopes: Sequence[Envelope]) -> dict[str, str]:
        sender = FrameSender(self._redis, self.shards())
        for envelope in envelopes:
            sender.add(envelope)
        sender.flush()
        return {str(shard): position for shard, position in sender.last_frames.items()}

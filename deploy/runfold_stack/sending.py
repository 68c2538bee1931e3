"""From many events to their streams: packed frames, pipelined, in constant memory.

Promises: an event counts as accepted once Redis has answered its XADD, never before, and the
events of a run keep their order. Dies halfway: what was accepted stays, and sending the same
again changes nothing, since every event has an id.
"""

from typing import Final

import redis
import zstandard

from runfold.codec import Envelope
from runfold.frames import encode_packed_frame
from runfold.streams import shard_of, stream_key

FRAME_EVENTS: Final = 2000
FRAME_BYTES: Final = 512 * 1024
_WINDOW_BYTES: Final = 4 * 1024 * 1024
"""Collected in all before a round trip."""


class FrameSender:
    """Collects events by shard and sends them; `accepted` counts those that are in a stream."""

    def __init__(self, client: redis.Redis, shards: int) -> None:
        self._client = client
        self._shards = shards
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._pending: dict[int, list[Envelope]] = {}
        self._bytes = 0
        self.accepted = 0
        self.last_frames: dict[int, str] = {}
        """The stream id of the last frame of each shard that something was sent to."""

    def add(self, envelope: Envelope) -> None:
        """Collect an event; sends when there is enough. Raises `redis.RedisError`."""
        shard = shard_of(envelope.run, self._shards)
        self._pending.setdefault(shard, []).append(envelope)
        self._bytes += len(envelope.body) + 200
        if self._bytes >= _WINDOW_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what was collected; raises `redis.RedisError` unless Redis took all of it."""
        frames = [
            (shard, frame)
            for shard, envelopes in self._pending.items()
            for frame in _cut(envelopes)
        ]
        self._pending, self._bytes = {}, 0
        if not frames:
            return
        with self._client.pipeline(transaction=False) as pipeline:
            for shard, frame in frames:
                fields = encode_packed_frame(frame, self._compressor)
                pipeline.xadd(stream_key(shard), fields)  # type: ignore[arg-type]  # dict is invariant
            answers = pipeline.execute(raise_on_error=False)
        refusal: Exception | None = None
        for (shard, frame), answer in zip(frames, answers, strict=True):
            if isinstance(answer, Exception):
                refusal = refusal or answer
            else:
                self.accepted += len(frame)
                self.last_frames[shard] = answer.decode()
        if refusal is not None:
            raise refusal


def _cut(envelopes: list[Envelope]) -> list[list[Envelope]]:
    frames: list[list[Envelope]] = []
    room = 0
    for envelope in envelopes:
        if room <= 0 or len(frames[-1]) == FRAME_EVENTS:
            frames.append([])
            room = FRAME_BYTES
        frames[-1].append(envelope)
        room -= len(envelope.body)
    return frames

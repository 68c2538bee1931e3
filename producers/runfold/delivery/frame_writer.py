"""Write events to their streams: packed frames of each shard in one pipelined round trip.

Shared by the SDK, the CLI and the API. An event counts as accepted once Redis has answered its
XADD; the events of a run keep their order. A writer that dies halfway leaves the accepted events;
to send all of them again changes nothing, since every event has an id.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import redis
import zstandard

from runfold.protocol.codec import Envelope
from runfold.protocol.frames import FRAME_BYTES, FRAME_EVENTS, encode_packed_frame
from runfold.protocol.streams import shard_of, stream_key

_WINDOW_BYTES: Final = 4 * 1024 * 1024
"""Bytes to collect before a round trip."""


class PackedFrame(NamedTuple):
    """An entry for the stream of one shard, and its number of events."""

    shard: int
    events: int
    fields: dict[bytes, bytes]


def pack_frames(
    envelopes: Iterable[Envelope], shards: int, compressor: zstandard.ZstdCompressor
) -> list[PackedFrame]:
    """Return frames of these events, in order within each shard."""
    by_shard: dict[int, list[Envelope]] = {}
    for envelope in envelopes:
        by_shard.setdefault(shard_of(envelope.run, shards), []).append(envelope)
    return [
        PackedFrame(shard, last - first, encode_packed_frame(own[first:last], compressor))
        for shard, own in sorted(by_shard.items())
        for first, last in frame_bounds([len(envelope.body) for envelope in own])
    ]


def frame_bounds(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """Return the range of each frame for bodies of these lengths in bytes.

    The body that reaches a limit is the last one of its frame.
    """
    if len(lengths) <= FRAME_EVENTS and sum(lengths) < FRAME_BYTES:
        yield 0, len(lengths)
        return
    first = size = 0
    for number, length in enumerate(lengths, start=1):
        size += length
        if size >= FRAME_BYTES or number - first == FRAME_EVENTS:
            yield first, number
            first, size = number, 0
    if first < len(lengths):
        yield first, len(lengths)


def append_frames(
    client: redis.Redis, frames: Iterable[tuple[int, dict[bytes, bytes]]]
) -> list[bytes | Exception]:
    """Append (shard, fields) in one pipeline; return ids or errors. Raises `redis.RedisError`."""
    with client.pipeline(transaction=False) as pipeline:
        for shard, fields in frames:
            pipeline.xadd(stream_key(shard), fields)  # type: ignore[arg-type]  # dict is invariant
        return pipeline.execute(raise_on_error=False)


class FrameSender:
    """Collects events and sends them in batches; `accepted` counts those that are in a stream."""

    def __init__(self, client: redis.Redis, shards: int) -> None:
        self._client = client
        self._shards = shards
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._pending: list[Envelope] = []
        self._bytes = 0
        self.accepted = 0
        self.last_frames: dict[int, str] = {}
        """The entry id of the last accepted frame, by shard."""

    def add(self, envelope: Envelope) -> None:
        """Collect an event, and send a full batch. Raises `redis.RedisError`."""
        self._pending.append(envelope)
        self._bytes += len(envelope.body) + 200
        if self._bytes >= _WINDOW_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send all collected events; raise `redis.RedisError` unless Redis accepts each frame."""
        frames = pack_frames(self._pending, self._shards, self._compressor)
        self._pending, self._bytes = [], 0
        if not frames:
            return
        answers = append_frames(self._client, ((frame.shard, frame.fields) for frame in frames))
        refusal: Exception | None = None
        for frame, answer in zip(frames, answers, strict=True):
            if isinstance(answer, Exception):
                refusal = refusal or answer
            else:
                self.accepted += frame.events
                self.last_frames[frame.shard] = answer.decode()
        if refusal is not None:
            raise refusal

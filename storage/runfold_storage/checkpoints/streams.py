"""Compare streams with checkpoints: the lag of the fold, and frames that it can never read.

`consumed` counts the frames of a shard that are accounted for: folded, or known to be lost. So
`entries-added - consumed` frames are pending. If more frames have left the stream than are
accounted for, the rest was trimmed or deleted unread. A stream that ends before its position, or
that counts fewer frames than were consumed, was replaced: Redis was flushed, or restored from a
copy. A flushed stream may grow longer than before, so workers also set a mark beside each stream.

Redis and PostgreSQL change between the two reads, so checkpoints are read before and after the
streams: the earlier ones decide whether a stream was replaced, the later ones what it lost.

The age of the oldest pending frame follows from the id of the first frame after the checkpoint,
which has the milliseconds of Redis' clock. Earlier frames may be committed but not trimmed yet.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import redis

from runfold.protocol import streams
from runfold.protocol.streams import mark_key, stream_key

from .positions import Position

_PAGE: Final = 100
NO_POSITION: Final = Position("0-0", 0, 0, 0)


class Stream(NamedTuple):
    """What Redis reports of one shard's stream; a stream that does not exist is empty."""

    exists: bool
    length: int = 0
    added: int = 0
    last: str = "0-0"
    is_marked: bool = False
    """Whether a worker has folded this stream."""

    @property
    def removed(self) -> int:
        """How many frames have left the stream."""
        return self.added - self.length


class Lag(NamedTuple):
    """Pending frames and the age of the oldest; lost frames; whether the stream was replaced."""

    frames: int
    age_s: float
    lost: int
    is_replaced: bool


def order(stream_id: str) -> tuple[int, int]:
    """Return a stream id as numbers, which compare in Redis' order."""
    milliseconds, _, sequence = stream_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def read_streams(client: redis.Redis, shards: Iterable[int]) -> tuple[dict[int, Stream], float]:
    """Return these shards' streams, and the time in seconds by Redis' clock."""
    shards = sorted(shards)
    with client.pipeline(transaction=False) as pipeline:
        pipeline.time()
        for shard in shards:
            # In this order: if the mark is found, the stream beside it is at least as new.
            pipeline.exists(mark_key(shard))
            pipeline.xinfo_stream(stream_key(shard))
        (seconds, microseconds), *answers = pipeline.execute(raise_on_error=False)
    found = zip(shards, answers[::2], answers[1::2], strict=True)
    streams = {shard: _stream(answer, mark) for shard, mark, answer in found}
    return streams, seconds + microseconds / 1e6


def read_lags(
    client: redis.Redis, load: Callable[[], Mapping[int, Position]], shards: int = 0
) -> tuple[dict[int, Stream], dict[int, Lag]]:
    """Return the streams and the lag of all shards with a checkpoint (`load` reads these), and of
    the first `shards`, which have none before a worker runs for the first time."""
    before = load()
    streams, _ = read_streams(client, {*before, *range(shards)})
    after = load()
    lags = {
        shard: _lag(stream, before.get(shard, NO_POSITION), after.get(shard, NO_POSITION))
        for shard, stream in streams.items()
    }
    waits_from = {
        shard: "-" if lag.is_replaced else f"({after.get(shard, NO_POSITION).position}"
        for shard, lag in lags.items()
        if streams[shard].length
    }
    for shard, age_s in _read_ages(client, waits_from).items():
        lags[shard] = lags[shard]._replace(age_s=age_s)
    return streams, lags


def mark_stream(client: redis.Redis, shard: int) -> None:
    """Set the mark of a stream that workers fold."""
    client.set(mark_key(shard), 1, nx=True)


def count_frames_after(client: redis.Redis, shard: int, position: str, last: str) -> int:
    """Count the frames of a stream after `position` and up to `last` by reading them."""
    number = 0
    key = stream_key(shard)
    while frames := client.xrange(key, min=f"({position}", max=last, count=_PAGE):
        number += len(frames)
        last_read: Any = frames[-1][0]
        position = last_read.decode()
    return number


def is_replaced(stream: Stream, position: Position) -> bool:
    """Return whether this cannot be the stream that the checkpoint belongs to."""
    return order(stream.last) < order(position.position) or stream.added < position.consumed


def _read_ages(client: redis.Redis, waits_from: Mapping[int, str]) -> dict[int, float]:
    """Return the age in seconds of the first frame of each stream from this id on."""
    if not waits_from:
        return {}
    with client.pipeline(transaction=False) as pipeline:
        pipeline.time()
        for shard, first in waits_from.items():
            pipeline.xrange(stream_key(shard), min=first, count=1)
        (seconds, microseconds), *answers = pipeline.execute()
    now_s = seconds + microseconds / 1e6
    return {
        shard: max(0.0, now_s - order(entries[0][0].decode())[0] / 1000)
        for shard, entries in zip(waits_from, answers, strict=True)
        if entries
    }


def _lag(stream: Stream, before: Position, after: Position) -> Lag:
    replaced = is_replaced(stream, before)
    lost = 0 if replaced else max(0, stream.removed - after.consumed)
    frames = (
        stream.length if replaced else max(0, min(stream.length, stream.added - after.consumed))
    )
    return Lag(frames, 0.0, lost, replaced)


def _stream(answer: Any, mark: Any) -> Stream:
    if isinstance(mark, Exception):
        raise mark
    if isinstance(answer, redis.ResponseError) and "no such key" in str(answer):
        return Stream(exists=False, is_marked=bool(mark))
    if isinstance(answer, Exception):
        raise answer
    return Stream(
        exists=True,
        length=answer["length"],
        added=answer["entries-added"],
        last=answer["last-generated-id"].decode(),
        is_marked=bool(mark),
    )


def trim(client: redis.Redis, shard: int, position: str) -> None:
    """Trim the frames up to this position, which is committed.

    The trim is exact: an approximate one leaves up to a hundred committed frames.
    """
    milliseconds, sequence = order(position)
    client.xtrim(
        streams.stream_key(shard), minid=f"{milliseconds}-{sequence + 1}", approximate=False
    )

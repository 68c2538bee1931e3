"""How far the fold lies behind, and what it can never fold: streams against checkpoints.

`consumed` counts the frames of a shard that are accounted for: folded, or known to be lost. So
`entries-added - consumed` frames wait; and if more have left the stream than are accounted for,
the rest was trimmed or deleted unread. A stream that ends before its position, or that counts fewer
frames than were consumed, is not the one it was: Redis was flushed, or restored from a copy.

Redis and PostgreSQL move on while the other one is asked, so the checkpoints are read before the
streams and after: what a stream lacks is judged by the earlier, what it lost by the later ones.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import redis

from runfold.streams import stream_key

from .positions import Position

NO_POSITION = Position("0-0", 0, 0, 0)


class Stream(NamedTuple):
    """What Redis knows of one shard's stream; one that does not exist is empty."""

    exists: bool
    length: int = 0
    added: int = 0
    last: str = "0-0"
    first: str | None = None

    @property
    def removed(self) -> int:
        """Frames that were in it and are not any more."""
        return self.added - self.length


class Lag(NamedTuple):
    """Frames that wait and for how long the oldest has; frames lost; whether it was replaced."""

    frames: int
    age_s: float
    lost: int
    is_replaced: bool


def order(stream_id: str) -> tuple[int, int]:
    """A stream id as numbers, which compare as Redis does."""
    milliseconds, _, sequence = stream_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def read_streams(client: redis.Redis, shards: Iterable[int]) -> tuple[dict[int, Stream], float]:
    """These shards' streams, and the time by Redis' clock."""
    shards = list(shards)
    with client.pipeline(transaction=False) as pipeline:
        pipeline.time()
        for shard in shards:
            pipeline.xinfo_stream(stream_key(shard))
        (seconds, microseconds), *answers = pipeline.execute(raise_on_error=False)
    streams = {shard: _stream(answer) for shard, answer in zip(shards, answers, strict=True)}
    return streams, seconds + microseconds / 1e6


def measure(
    streams: Mapping[int, Stream],
    now_s: float,
    before: Mapping[int, Position],
    after: Mapping[int, Position],
) -> dict[int, Lag]:
    """The lag of each stream; `before` and `after` are the checkpoints around reading them."""
    return {
        shard: _lag(stream, now_s, before.get(shard, NO_POSITION), after.get(shard, NO_POSITION))
        for shard, stream in streams.items()
    }


def look(
    client: redis.Redis, load: Callable[[], Mapping[int, Position]]
) -> tuple[dict[int, Stream], dict[int, Lag]]:
    """The streams and the lag of all shards that `load` has checkpoints of."""
    before = load()
    streams, now_s = read_streams(client, before)
    return streams, measure(streams, now_s, before, load())


def is_replaced(stream: Stream, position: Position) -> bool:
    """Whether it cannot be the stream that this checkpoint was made on."""
    return order(stream.last) < order(position.position) or stream.added < position.consumed


def _lag(stream: Stream, now_s: float, before: Position, after: Position) -> Lag:
    replaced = is_replaced(stream, before)
    lost = 0 if replaced else max(0, stream.removed - after.consumed)
    frames = (
        stream.length if replaced else max(0, min(stream.length, stream.added - after.consumed))
    )
    age_s = 0.0
    if frames and stream.first is not None:
        # What is committed and not trimmed yet stands before the oldest that waits.
        oldest = stream.first if replaced else max(stream.first, after.position, key=order)
        age_s = max(0.0, now_s - order(oldest)[0] / 1000)
    return Lag(frames, age_s, lost, replaced)


def _stream(answer: Any) -> Stream:
    if isinstance(answer, redis.ResponseError) and "no such key" in str(answer):
        return Stream(exists=False)
    if isinstance(answer, Exception):
        raise answer
    first = answer["first-entry"]
    return Stream(
        exists=True,
        length=answer["length"],
        added=answer["entries-added"],
        last=answer["last-generated-id"].decode(),
        first=None if first is None else first[0].decode(),
    )

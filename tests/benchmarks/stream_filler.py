"""A child that makes events and puts them into their streams; it also times plain XADD.

Frames are encoded first, some megabytes at a time, and then sent in pipelines: only the sending
counts as `xadd_s`, which makes every filling a measurement of raw pipelined XADD of these bytes.
"""

import gc
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final, NamedTuple

import redis

from benchmarks import month
from benchmarks.children import Child, arguments, say
from benchmarks.workload import EVENTS_PER_RUN, Encoder, Fields, envelopes, frames
from runfold.protocol import streams
from runfold.protocol.codec import Envelope

_CHUNK_BYTES: Final = 64 * 1024 * 1024
_PIPELINE_BYTES: Final = 2 * 1024 * 1024


class Filled(NamedTuple):
    """What went into the streams, and the seconds that XADD alone took."""

    events: int
    frames: int
    bytes: int
    xadd_s: float


def fill(
    redis_url: str, runs: int, *, packed: bool = True, month: tuple[int, int, int] | None = None
) -> Filled:
    """Put so many runs into the streams; returns when they are there.

    `month` makes them runs of `benchmarks.month`: the first one's number, how many the month has,
    and when it ends, in microseconds.
    """
    with Child(
        "stream_filler", redis_url=redis_url, runs=runs, packed=packed, month=month
    ) as child:
        return Filled(*child.answer())


def main() -> None:
    """In the child."""
    given = arguments()
    packed: bool = given["packed"]
    encoder = Encoder(packed=packed)
    count = total = 0
    xadd_s = 0.0
    with redis.Redis.from_url(given["redis_url"]) as client:
        shards = streams.agree_on_shards(client)
        events = _events(given, shards)
        encoded = (
            (streams.stream_key(frame.shard), encoder.encode(frame))
            for frame in frames(events, single=not packed)
        )
        gc.freeze()
        for chunk in _chunks(encoded, _CHUNK_BYTES):
            began = time.perf_counter()
            for entries in _chunks(chunk, _PIPELINE_BYTES):
                _send(client, entries)
            xadd_s += time.perf_counter() - began
            count += len(chunk)
            total += sum(map(_size, chunk))
    say(Filled(given["runs"] * EVENTS_PER_RUN, count, total, xadd_s))


def _events(given: dict[str, Any], shards: int) -> Iterator[tuple[int, Envelope]]:
    if given["month"] is None:
        return envelopes(given["runs"], shards=shards, begin_us=time.time_ns() // 1000)
    first, of, end_us = given["month"]
    return month.envelopes(first, given["runs"], of, shards=shards, end_us=end_us)


_Entry = tuple[str, Fields]


def _send(client: redis.Redis, entries: Iterable[_Entry]) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for key, fields in entries:
            pipeline.xadd(key, fields)
        pipeline.execute()


def _chunks(entries: Iterable[_Entry], most_bytes: int) -> Iterator[list[_Entry]]:
    rest = iter(entries)
    for first in rest:
        chunk, size = [], 0
        for entry in chain((first,), rest):
            chunk.append(entry)
            size += _size(entry)
            if size >= most_bytes:
                break
        yield chunk


def _size(entry: _Entry) -> int:
    return sum(map(len, entry[1].values()))


if __name__ == "__main__":
    main()

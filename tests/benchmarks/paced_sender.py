"""A child that sends events at a steady rate, cut into frames as an idle emitter cuts them.

Every 5 ms, the emitter's linger, one pipeline takes a frame to each shard that has events. They
are encoded before the clock starts, with the times at which they are due, so that making them
takes nothing from what is measured. Told once more, it stops before all is sent.
"""

import gc
import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import Final

import redis

from benchmarks.children import arguments, await_go, await_line, say
from benchmarks.workload import EVENTS_PER_RUN, PROJECT, Encoder, Fields, Frame, envelopes
from runfold.protocol import streams

TICK_S: Final = 0.005
_SAMPLE_EVERY_S: Final = 0.05

_Tick = list[tuple[int, Fields, str, list[str]]]
"""Shard, the entry's fields, a run of it, and the runs that end in it."""


def main() -> None:
    """In the child: a line for every sampled frame at once, and one with all frames at the end."""
    given = arguments()
    rate: int = given["events_per_s"]
    seconds: float = given["seconds"]
    with redis.Redis.from_url(given["redis_url"], decode_responses=True) as client:
        shards = streams.agree_on_shards(client)
        ticks = list(_ticks(rate, seconds, shards, given.get("project", PROJECT)))
        gc.collect()
        gc.disable()  # what it notes is kept to the end, and would be walked again and again
        await_go()
        enough = threading.Event()

        def await_enough() -> None:
            await_line()
            enough.set()

        threading.Thread(target=await_enough, daemon=True).start()
        sent, ended_ns, late_s = _send(client, ticks, enough)
    say({"frames": sent, "ended_ns": ended_ns, "late_ms_max": max(late_s) * 1000})


def _ticks(rate: int, seconds: float, shards: int, project: str) -> Iterator[_Tick]:
    encoder = Encoder()
    runs = max(1, round(rate * seconds / EVENTS_PER_RUN))
    begin_us = time.time_ns() // 1000
    events = envelopes(runs, shards=shards, begin_us=begin_us, step_us=1e6 / rate, project=project)
    while due := list(islice(events, max(1, round(rate * TICK_S)))):
        by_shard: dict[int, Frame] = {}
        for shard, envelope in due:
            by_shard.setdefault(shard, Frame(shard, [])).events.append(envelope)
        yield [
            (
                frame.shard,
                encoder.encode(frame),
                frame.events[-1].run,
                [event.run for event in frame.events if event.type == "completed"],
            )
            for frame in by_shard.values()
        ]


def _send(
    client: redis.Redis, ticks: list[_Tick], enough: threading.Event
) -> tuple[list[tuple[int, str, int]], dict[str, int], list[float]]:
    """(shard, entry id, when it was sent, in monotonic ns) of each frame; when the end of each run
    was sent; seconds late a tick."""
    ended_ns: dict[str, int] = {}
    sent: list[tuple[int, str, int]] = []
    late_s = []
    began = time.monotonic()
    sample_at = 0.0
    for number, tick in enumerate(ticks):
        if enough.is_set():
            break
        due = began + number * TICK_S
        if (left := due - time.monotonic()) > 0:
            time.sleep(left)
        late_s.append(time.monotonic() - due)
        sent_ns = time.monotonic_ns()
        with client.pipeline(transaction=False) as pipeline:
            for shard, fields, _, ended in tick:
                ended_ns |= dict.fromkeys(ended, sent_ns)
                pipeline.xadd(streams.stream_key(shard), fields)
            ids = pipeline.execute()
        sent.extend((shard, entry, sent_ns) for (shard, *_), entry in zip(tick, ids, strict=True))
        if due >= sample_at:
            sample_at = due + _SAMPLE_EVERY_S
            say({"shard": tick[0][0], "id": ids[0], "sent_ns": sent_ns, "run": tick[0][2]})
    return sent, ended_ns, late_s


if __name__ == "__main__":
    main()

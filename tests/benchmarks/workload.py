"""The standard workload: runs of 10 events of about 300 bytes, 200 of them interleaved."""

import random
from collections.abc import Iterator

import redis
import zstandard
from msgspec import Raw

from runfold import streams
from runfold.codec import Envelope, seal
from runfold.events import Completed, Event, NodeFinished, NodeStarted, Started, Usage
from runfold.frames import encode_json_frame, encode_packed_frame
from runfold.ids import make_run_id

EVENTS_PER_RUN = 10
INTERLEAVED = 200
PAYLOAD_BYTES = 270
FRAME_EVENTS = 500

_RANDOM = random.Random(1)
_POOL = _RANDOM.randbytes(1 << 20).hex().encode()


def payload() -> Raw:
    """JSON that compresses about as badly as hexadecimal noise does."""
    start = _RANDOM.randrange(len(_POOL) - PAYLOAD_BYTES)
    return Raw(b'{"data":"' + _POOL[start : start + PAYLOAD_BYTES] + b'"}')


def run_event(workflow: str, number: int) -> Event:
    """The event of that number in a run of four nodes, one after the other."""
    if number == 0:
        return Started(workflow=workflow, project="bench", inputs=payload())
    if number == EVENTS_PER_RUN - 1:
        return Completed(outputs=payload())
    node = f"node-{(number + 1) // 2}"
    if number % 2:
        return NodeStarted(node=node, inputs=payload())
    usage = Usage(input_tokens=120, output_tokens=40, cost_usd=0.002)
    return NodeFinished(node=node, outputs=payload(), usage=usage)


def envelopes(count: int, *, begin_us: int) -> Iterator[Envelope]:
    """So many events, one every ten microseconds from `begin_us` on."""
    running: list[tuple[str, str, int]] = []
    at_us = begin_us
    made = 0
    while made < count:
        while len(running) < INTERLEAVED:
            running.append((make_run_id(at_us), f"workflow-{_RANDOM.randrange(20)}", 0))
        following = []
        for run, workflow, number in running:
            at_us += 10
            made += 1
            yield seal(run_event(workflow, number), run=run, id=number, at_us=at_us)
            if number + 1 < EVENTS_PER_RUN:
                following.append((run, workflow, number + 1))
        running = following


def fill(client: redis.Redis, events: Iterator[Envelope], *, packed: bool = True) -> int:
    """Put events into their streams, in SDK frames or one JSON frame an event; returns how many."""
    shards = streams.agree_on_shards(client)
    compressor = zstandard.ZstdCompressor(level=1)
    waiting: dict[int, list[Envelope]] = {shard: [] for shard in range(shards)}
    pipeline = client.pipeline(transaction=False)
    size = FRAME_EVENTS if packed else 1

    def send(shard: int) -> None:
        batch = waiting[shard]
        fields = encode_packed_frame(batch, compressor) if packed else encode_json_frame(batch)
        pipeline.xadd(streams.stream_key(shard), fields)
        batch.clear()
        if len(pipeline) >= 200:
            pipeline.execute()

    count = 0
    for envelope in events:
        shard = streams.shard_of(envelope.run, shards)
        waiting[shard].append(envelope)
        count += 1
        if len(waiting[shard]) >= size:
            send(shard)
    for shard, batch in waiting.items():
        if batch:
            send(shard)
    pipeline.execute()
    return count

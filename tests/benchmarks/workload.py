"""The standard workload: runs of 10 events of about 300 bytes, 200 of them interleaved.

Bodies are made once, in thousands of variants, and used again under new run ids and times, so
that tens of millions of events are made in minutes. No frame repeats a body, which would make it
compress better than real ones do.
"""

import random
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import zstandard
from msgspec import Raw

from runfold.protocol import streams
from runfold.protocol.codec import Envelope, make_envelope
from runfold.protocol.events import Completed, Event, NodeFinished, NodeStarted, Started, Usage
from runfold.protocol.frames import encode_json_frame, encode_packed_frame
from runfold.protocol.ids import make_run_id

EVENTS_PER_RUN: Final = 10
NODES_PER_RUN: Final = 4
INTERLEAVED: Final = 200
PAYLOAD_BYTES: Final = 270
PROJECT: Final = "bench"
FRAME_BYTES: Final = 256 * 1024
"""Of bodies, in a frame of a busy emitter."""

WORKFLOWS: Final = 20
_VARIANTS: Final = 4000
_RANDOM: Final = random.Random(1)
_POOL: Final = _RANDOM.randbytes(1 << 20).hex().encode()


Fields = dict[Any, Any]
"""Of a stream entry: bytes to bytes, but redis-py asks for a dict of a wide union, invariantly."""


class Frame(NamedTuple):
    """Events of one shard that go into one stream entry."""

    shard: int
    events: list[Envelope]


def payload() -> Raw:
    """JSON that compresses about as badly as hexadecimal noise does."""
    start = _RANDOM.randrange(len(_POOL) - PAYLOAD_BYTES)
    return Raw(b'{"data":"' + _POOL[start : start + PAYLOAD_BYTES] + b'"}')


def run_event(workflow: str, number: int, project: str = PROJECT) -> Event:
    """The event of that number in a run of four nodes, one after the other."""
    if number == 0:
        return Started(workflow=workflow, project=project, inputs=payload())
    if number == EVENTS_PER_RUN - 1:
        return Completed(outputs=payload())
    node = f"node-{(number + 1) // 2}"
    if number % 2:
        return NodeStarted(node=node, inputs=payload())
    usage = Usage(input_tokens=120, output_tokens=40, cost_usd=0.002)
    return NodeFinished(node=node, outputs=payload(), usage=usage)


def envelopes(
    runs: int, *, shards: int, begin_us: int, step_us: float = 10.0, project: str = PROJECT
) -> Iterator[tuple[int, Envelope]]:
    """The events of so many runs, each with its shard, one every `step_us` from `begin_us` on.

    The runs that are under way at one time are at all stages, as if each had begun by itself.
    """
    templates = [
        [_template(variant, number, project) for number in range(EVENTS_PER_RUN)]
        for variant in range(min(_VARIANTS, runs))
    ]
    at_us = float(begin_us)
    begun = 0
    active: list[tuple[str, int, list[tuple[str, bytes]], int]] = []
    while begun < runs or active:
        for _ in range(min(INTERLEAVED // EVENTS_PER_RUN, runs - begun)):
            run = make_run_id(int(at_us))
            bodies = templates[begun % len(templates)]
            active.append((run, streams.shard_of(run, shards), bodies, 0))
            begun += 1
        going_on = []
        for run, shard, bodies, number in active:
            at_us += step_us
            kind, body = bodies[number]
            yield shard, Envelope(type=kind, run=run, id=number, at_us=int(at_us), body=body)
            if number + 1 < EVENTS_PER_RUN:
                going_on.append((run, shard, bodies, number + 1))
        active = going_on


def frames(events: Iterable[tuple[int, Envelope]], *, single: bool = False) -> Iterator[Frame]:
    """Cut events into frames: as large as a busy emitter makes them, or of one event each."""
    waiting: dict[int, list[Envelope]] = {}
    room: dict[int, int] = {}
    for shard, envelope in events:
        if single:
            yield Frame(shard, [envelope])
            continue
        batch = waiting.setdefault(shard, [])
        batch.append(envelope)
        left = room[shard] = room.get(shard, FRAME_BYTES) - len(envelope.body)
        if left <= 0:
            yield Frame(shard, batch)
            del waiting[shard], room[shard]
    for shard, batch in waiting.items():
        yield Frame(shard, batch)


class Encoder:
    """Frames as the fields of a stream entry: the SDK's packed form, or JSON as written by hand."""

    def __init__(self, *, packed: bool = True) -> None:
        self._packed = packed
        self._compressor = zstandard.ZstdCompressor(level=1)

    def encode(self, frame: Frame) -> Fields:
        """The one field and its bytes."""
        if self._packed:
            return encode_packed_frame(frame.events, self._compressor)
        return encode_json_frame(frame.events)


def _template(variant: int, number: int, project: str) -> tuple[str, bytes]:
    event = run_event(f"workflow-{variant % WORKFLOWS}", number, project)
    return event.type, make_envelope(event, run="-", id=0, at_us=0).body

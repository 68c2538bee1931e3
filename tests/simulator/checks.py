"""What must hold of a history at any moment between two steps, and at its end."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol
from uuid import UUID

from fake_tables import FakeTables, assert_tables_equal, fold_frames
from oracle import Event, Projection, project
from runfold.errors import BrokenFrame
from runfold.protocol.codec import Envelope
from runfold.protocol.frames import decode_frame, encode_json_frame
from runfold_workers.fold.batch_builder import BatchBuilder
from runfold_workers.fold.frame_decoder import StreamEntry
from runfold_workers.fold.run_cache import RunRef

from .fake_database import DatabaseContext
from .fake_redis import Fields, frames_after, to_stream_id, to_text
from .recorders import EventRef, RecorderProducer
from .runners import ProducerContext

REASONS_TO_REPEAT = {"crash", "disk_fails", "redelivery", "outage", "power_fails", "redis_fails"}


class CheckContext(ProducerContext, DatabaseContext, Protocol):
    """All of it."""

    def ref_of(self, run: str) -> RunRef:
        """Under which key the tables have a run."""


def check(world: CheckContext) -> None:
    """The tables say what the committed frames say, and nothing unread was thrown away."""
    tables = world.database.tables
    folded: dict[EventRef, Event] = {}
    must, may = set(), set()
    for shard, position in tables.positions.items():
        at = to_stream_id(position.position)
        behind = frames_after(world.redis.history[shard], at)
        assert frames_after(world.redis.entries[shard], at) == behind, "trimmed unread"
        done = world.redis.history[shard][: len(world.redis.history[shard]) - len(behind)]
        assert position.consumed == len(done), "frames were counted that were not read"
        for entry_id, fields in done:
            for ordinal, ref in enumerate(refs_of(fields)):
                place = (shard, to_text(entry_id), ordinal)
                if ref is None or ref in world.poisoned:
                    may.add(place)
                    if ref is None or world.ref_of(ref[0]) not in tables.tombstones:
                        must.add(place)
                else:
                    folded[ref] = world.emitted[ref]
    assert must <= tables.dead_letters.keys() <= may, "dead letters"
    alive = [e for e in folded.values() if world.ref_of(e["run"]) not in tables.tombstones]
    expected = project(alive, world.shards)
    assert_tables_equal(tables, expected, seen=False)
    signs = [event for event in alive if event["type"] == "heartbeat"]
    projected = (
        project((e for e in alive if e["type"] != "heartbeat"), world.shards) if signs else expected
    )
    for run, row in tables.runs.items():
        assert (
            projected.runs[run].last_event_us
            <= row.last_event_us
            <= expected.runs[run].last_event_us
        )
    check_rebuilt(tables, expected, world.shards)


def check_rebuilt(tables: FakeTables, expected: Projection, shards: int) -> None:
    """A fold of nothing but the ledger makes the same rows."""
    envelopes: list[list[Envelope]] = [[] for _ in range(shards)]
    for (shard, key), events in tables.ledger.items():
        for event_id, (at_us, event_type, body) in events.items():
            run = json.loads(body).get("run") or str(UUID(bytes=key))
            envelopes[shard].append(Envelope(event_type, run, event_id, at_us, strip_run(body)))
    entries = [
        StreamEntry(shard, "1-0", encode_json_frame(of_shard))
        for shard, of_shard in enumerate(envelopes)
        if of_shard
    ]
    rebuilt = FakeTables(shards)
    rebuilt.tombstones = set()
    rebuilt.apply(
        fold_frames(BatchBuilder(rebuilt.load, shards=shards), entries, rebuilt.positions)
    )
    assert_tables_equal(with_ledger_of(rebuilt, tables), expected, seen=False)


def strip_run(body: bytes) -> bytes:
    """A body as it was sent."""
    fields: dict[str, Any] = json.loads(body)
    fields.pop("run", None)
    return json.dumps(fields).encode()


def with_ledger_of(rebuilt: FakeTables, tables: FakeTables) -> FakeTables:
    """Bodies are compared as they are in the ledger itself."""
    assert rebuilt.ledger.keys() == tables.ledger.keys()
    rebuilt.ledger = tables.ledger
    return rebuilt


def check_end(world: CheckContext) -> None:
    """All frames are folded, and no acknowledged event is missing."""
    arrived: set[EventRef] = set()
    for shard, position in world.database.tables.positions.items():
        assert to_stream_id(position.position) == world.redis.last(shard)
        for _, fields in world.redis.history[shard]:
            arrived.update(ref for ref in refs_of(fields) if ref is not None)
    assert world.acknowledged <= arrived, "acknowledged, but in no stream"
    check(world)


def check_drops(world: CheckContext, recorders: Sequence[RecorderProducer]) -> None:
    """Redis knows of every event that was given up, unless the disk failed too."""
    if "disk_fails" not in world.faults.occurred:
        known = int(world.redis.values.get("runfold:dropped", b"0"))
        assert known >= sum(recorder.dropped_at_exit for recorder in recorders), (
            "drops without an alarm"
        )


def check_orders(world: CheckContext, recorders: Sequence[RecorderProducer]) -> None:
    """What one process says of a run comes in its order, and nothing twice without a reason."""
    frames = [fields for history in world.redis.history for _, fields in history]
    came = dict.fromkeys(ref for fields in frames for ref in refs_of(fields))
    turns = {ref: turn for turn, ref in enumerate(came)}
    # Two segments of one process can be sent by two others at a time.
    scattered = any(recorder.segments_left > 1 for recorder in recorders)
    for recorder in recorders:
        for order in () if scattered and not recorder.is_drained else recorder.order.values():
            found = [turns[ref] for ref in order if ref in turns]
            assert found == sorted(found), "events of a run overtook others"
    if world.faults.occurred.isdisjoint(REASONS_TO_REPEAT):
        for history in world.redis.history:
            refs = [ref for _, fields in history for ref in refs_of(fields) if ref is not None]
            assert len(refs) == len(set(refs)), "sent twice although nothing went wrong"


def refs_of(fields: Fields) -> Sequence[EventRef | None]:
    """The events of a frame; None for what cannot be read."""
    return _refs_of(tuple(fields.items()))


@lru_cache(20_000)
def _refs_of(fields: tuple[tuple[bytes, bytes], ...]) -> Sequence[EventRef | None]:
    try:
        return [(envelope.run, envelope.id) for envelope, _ in decode_frame(dict(fields)).events]
    except BrokenFrame:
        return [None]

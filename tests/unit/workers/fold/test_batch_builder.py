"""The fold against its definition, on paper: no database, every interleaving that one can draw."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from event_histories import (
    NOON_US,
    SHARDS,
    History,
    Step,
    cut_into_steps,
    draw_history,
    examples,
    generate_runs,
    to_entry,
)
from fake_tables import FakeTables, assert_tables_equal, fold_frames
from oracle import Event, project
from runfold.protocol.codec import TYPES
from runfold.protocol.ids import run_key_bytes
from runfold.protocol.streams import shard_of
from runfold_workers.fold.batch_builder import BatchBuilder
from runfold_workers.fold.frame_decoder import EventLocation, StreamEntry


def fold(steps: Sequence[Step], paper: FakeTables, max_cache_bytes: int = 1_000_000_000) -> None:
    """Fold and write every step, as one worker after another would."""
    folder = BatchBuilder(paper.load, max_cache_bytes=max_cache_bytes)
    for step in steps:
        if step.restart:
            folder = BatchBuilder(paper.load, max_cache_bytes=max_cache_bytes)
        batch = fold_frames(folder, step.entries, paper.positions)
        paper.apply(batch)
        folder.written(batch)


@settings(max_examples=examples(3), suppress_health_check=list(HealthCheck))
@given(draw_history())
def test_however_events_arrive_the_rows_are_those_of_the_definition(history: History) -> None:
    """Order, cuts, duplicates, forgetting and restarts change nothing."""
    paper = FakeTables()

    fold(history.steps, paper, history.max_cache_bytes)

    expected = project(history.events, SHARDS)
    assert_tables_equal(paper, expected, seen=False)
    ledger_only = [event for event in history.events if event["type"] != "heartbeat"]
    folded = project(ledger_only, SHARDS)
    for ref, row in paper.runs.items():
        # Only a heartbeat that came before there was a row may be forgotten.
        assert (
            folded.runs[ref].last_event_us <= row.last_event_us <= expected.runs[ref].last_event_us
        )


@settings(max_examples=examples(2), suppress_health_check=list(HealthCheck))
@given(draw_history(signs=("lost",)))
def test_lost_is_taken_back_by_whatever_happened_later(history: History) -> None:
    """Whenever that arrives, and however often a worker is restarted in between."""
    paper = FakeTables()

    fold(history.steps, paper, history.max_cache_bytes)

    assert_tables_equal(paper, project(history.events, SHARDS))


@settings(max_examples=examples(), suppress_health_check=list(HealthCheck))
@given(draw_history(signs=("heartbeat", "lost")))
def test_a_worker_that_lives_on_and_remembers_all_knows_every_sign_of_life(
    history: History,
) -> None:
    """Without restarts and forgetting, `last_event_at` is exact as well."""
    paper = FakeTables()

    fold([replace(step, restart=False) for step in history.steps], paper)

    assert_tables_equal(paper, project(history.events, SHARDS))


@settings(max_examples=examples(0.5), suppress_health_check=list(HealthCheck))
@given(draw_history())
def test_a_repeated_history_changes_nothing(history: History) -> None:
    """Delivered twice by a second worker, no row changes and the feed stands still."""
    paper = FakeTables()
    fold(history.steps, paper)
    heartbeats = [e for e in history.events if e["type"] == "heartbeat"]
    once = [e for e in history.events if e["type"] != "heartbeat"]
    change_seqs = {shard: position.change_seq for shard, position in paper.positions.items()}
    again = cut_into_steps(once, [""] * len(once), packed=True) if once else []

    fold([replace(step, restart=True) for step in again], paper)

    assert_tables_equal(paper, project(history.events, SHARDS), seen=not heartbeats)
    assert change_seqs == {shard: was.change_seq for shard, was in paper.positions.items()}


@pytest.mark.parametrize("max_cache_bytes", [0, 75_000, 1_000_000_000])
def test_many_interleaved_runs(max_cache_bytes: int) -> None:
    """Two thousand events of a hundred runs, shuffled and in small batches, count once each."""
    rng = random.Random(max_cache_bytes)
    runs = generate_runs(seed=1, events=2000)
    events = [event for run in runs for event in run if event["type"] != "heartbeat"]
    delivered = events + rng.sample(events, 300)
    rng.shuffle(delivered)
    cuts = rng.choices(["", "frame", "batch", "restart"], [90, 5, 4, 1], k=len(delivered))
    paper = FakeTables()

    fold(cut_into_steps(delivered, cuts, packed=True), paper, max_cache_bytes)

    assert_tables_equal(paper, project(events, SHARDS))


def started(run: str = "a run", event_id: int = 0, at_us: int = NOON_US, **fields: Any) -> Event:
    return {"type": "started", "run": run, "id": event_id, "at_us": at_us, **fields}


def frame_of(*events: Event, number: int = 1) -> StreamEntry:
    return to_entry(shard_of(events[0]["run"], SHARDS), number, events, packed=False)


def test_a_heartbeat_is_not_forgotten_with_the_run() -> None:
    """`last_event_at` does not go back when a run is folded again without its heartbeats."""
    paper = FakeTables()
    heartbeat = {"type": "heartbeat", "run": "a run", "id": 1, "at_us": NOON_US + 60_000_000}
    annotated = {"type": "annotated", "run": "a run", "id": 2, "at_us": NOON_US, "tags": {"a": "b"}}

    fold(
        [
            Step([frame_of(started(), heartbeat)], restart=False),
            Step([frame_of(annotated, number=2)], restart=True),
        ],
        paper,
    )

    [row] = paper.runs.values()
    assert row.tags == {"a": "b"}
    assert row.last_event_us == NOON_US + 60_000_000


def test_a_deleted_run_stays_deleted() -> None:
    """Events of a run with a tombstone leave no trace, but the position moves on."""
    paper = FakeTables()
    shard = shard_of("a run", SHARDS)
    paper.tombstones = {(shard, run_key_bytes("a run"))}

    fold([Step([frame_of(started())], restart=False)], paper)

    assert (paper.ledger, paper.runs, paper.stats) == ({}, {}, {})
    assert paper.positions[shard].position == "1-0"


def test_what_cannot_be_read_is_a_dead_letter_beside_its_neighbours() -> None:
    """A broken event is put aside with its place and its bytes; those around it count."""
    entry = StreamEntry(
        0,
        "5-0",
        {
            b"events": b'[{"type":"started","run":"r","id":0,"at":"2026-01-01T00:00:00Z"},'
            b'{"type":"sung","run":"r","id":1,"at":"2026-01-01T00:00:00Z"},'
            b'{"type":"completed","run":"r","id":2,"at":"2026-01-01T00:00:00Z"}]'
        },
    )

    batch = fold_frames(BatchBuilder(FakeTables().load), [entry], FakeTables().positions)

    assert [TYPES[kind] for _, _, _, kind, _, _ in batch.events] == ["started", "completed"]
    [letter] = batch.dead_letters
    assert (letter.shard, letter.frame, letter.ordinal) == (0, "5-0", 1)
    assert "unknown type 'sung'" in letter.reason
    assert b'"sung"' in letter.raw


def test_a_frame_that_cannot_be_read_is_one_dead_letter() -> None:
    """Its bytes are kept whole, and the position moves past it."""
    entry = StreamEntry(1, "5-0", {b"packed": b"not a frame"})

    batch = fold_frames(BatchBuilder(FakeTables().load), [entry], FakeTables().positions)

    assert [(letter.frame, letter.raw) for letter in batch.dead_letters] == [
        ("5-0", b"not a frame")
    ]
    assert [step.position for step in batch.advances] == ["5-0"]


def test_refused_events_are_left_out() -> None:
    """An event that the database will not have becomes a dead letter with the reason given."""
    frame = frame_of(started(), started("a run", 1, tags={"a": "b"}))
    place = EventLocation(frame.shard, frame.id, 1)

    batch = fold_frames(
        BatchBuilder(FakeTables().load), [frame], FakeTables().positions, {place: "too odd"}
    )

    assert [event_id for _, event_id, *_ in batch.events] == [0]
    assert [(letter.ordinal, letter.reason) for letter in batch.dead_letters] == [(1, "too odd")]


def test_only_what_changed_is_written() -> None:
    """A start that comes late and does not count is in the ledger, and changes no row."""
    paper = FakeTables()
    folder = BatchBuilder(paper.load)
    node = {"type": "node_started", "run": "a run", "id": 1, "at_us": NOON_US, "node": "n"}
    paper.apply(fold_frames(folder, [frame_of(started(), node)], paper.positions))

    batch = fold_frames(folder, [frame_of(node | {"id": 2}, number=2)], paper.positions)

    assert len(batch.events) == 1
    assert (batch.runs, batch.nodes, batch.stats) == ([], [], {})


def test_late_output_is_a_change_without_a_changed_row() -> None:
    """Who watches the run has to hear of it; a duplicate is no news, nor what is read again."""
    paper = FakeTables()
    folder = BatchBuilder(paper.load)
    paper.apply(fold_frames(folder, [frame_of(started())], paper.positions))
    [row] = paper.runs.values()
    late = {"type": "logged", "run": "a run", "id": 1, "at_us": NOON_US - 5, "text": "late"}
    later = late | {"id": 2, "at_us": NOON_US - 4}

    folded = [
        _changes(folder, paper, frame_of(event, number=number))
        for number, event in enumerate((late, later, later), 2)
    ]

    assert folded == [[row._replace(created_us=NOON_US - 5)]] * 2 + [[]]
    folder.cache.forget()
    assert _changes(folder, paper, frame_of(later, number=5)) == []


def _changes(folder: BatchBuilder, paper: FakeTables, frame: StreamEntry) -> list[Any]:
    batch = fold_frames(folder, [frame], paper.positions)
    paper.apply(batch)
    return [row for row, _ in batch.changed_runs]


def test_a_batch_that_was_not_committed_is_forgotten() -> None:
    """After `forget` the same frames fold to the same batch, not to nothing but duplicates."""
    paper = FakeTables()
    folder = BatchBuilder(paper.load)
    frame = frame_of(started())
    lost = fold_frames(folder, [frame], paper.positions)

    folder.cache.forget()

    again = fold_frames(folder, [frame], paper.positions)
    assert replace(again, number=lost.number) == lost


def lost(at_us: int, event_id: int = 77) -> Event:
    return {"type": "lost", "run": "a run", "id": event_id, "at_us": at_us, "silent_s": 3600}


def heartbeat(at_us: int, event_id: int) -> Event:
    return {"type": "heartbeat", "run": "a run", "id": event_id, "at_us": at_us}


def test_a_heartbeat_that_takes_lost_back_is_kept() -> None:
    """Or a worker that reads the ledger again would take the run for lost again."""
    paper = FakeTables()
    signs = [lost(NOON_US), heartbeat(NOON_US + 7, 1), heartbeat(NOON_US + 8, 2)]
    tag = {"type": "annotated", "run": "a run", "id": 3, "at_us": NOON_US, "tags": {"a": "b"}}

    fold(
        [
            Step([frame_of(started(), *signs)], restart=False),
            Step([frame_of(tag, number=2)], restart=True),
        ],
        paper,
    )

    [row] = paper.runs.values()
    assert (row.status, row.tags) == ("running", {"a": "b"})
    [ledger] = paper.ledger.values()
    assert [event_type for _, event_type, _ in ledger.values()] == [
        "started",
        "lost",
        "heartbeat",
        "annotated",
    ]


def test_lost_that_came_too_late_is_not_kept() -> None:
    """What the ledger has no heartbeat against, it must not have either."""
    paper = FakeTables()

    fold(
        [
            Step([frame_of(started(), heartbeat(NOON_US + 7, 1), lost(NOON_US))], restart=False),
            Step([frame_of(started(event_id=5, at_us=NOON_US), number=2)], restart=True),
        ],
        paper,
    )

    [row] = paper.runs.values()
    assert (row.status, row.last_event_us) == ("running", NOON_US + 7)


def test_a_real_end_beats_lost() -> None:
    """Even one that happened before the last sign of life."""
    paper = FakeTables()
    end = {"type": "completed", "run": "a run", "id": 1, "at_us": NOON_US}

    fold([Step([frame_of(started(), lost(NOON_US + 5), end)], restart=False)], paper)

    [row] = paper.runs.values()
    assert (row.status, row.finished_us) == ("completed", NOON_US)


def test_lost_alone_makes_no_run() -> None:
    """It was inferred from a run that has been deleted since."""
    paper = FakeTables()

    fold([Step([frame_of(lost(NOON_US))], restart=False)], paper)

    assert paper.runs == {}


def test_heartbeats_leave_no_gap_in_what_was_seen() -> None:
    """A long run's later events stay a number, not a set that grows with each of them."""
    paper = FakeTables()
    folder = BatchBuilder(paper.load)
    ids = range(1, 200)
    events: list[Event] = [{"type": "started", "run": "r", "id": 0, "at_us": NOON_US}]
    events += [
        {"type": "heartbeat" if n % 3 else "logged", "run": "r", "id": n, "at_us": NOON_US + n}
        | ({} if n % 3 else {"text": "x"})
        for n in ids
    ]
    shard = shard_of("r", SHARDS)
    fold_frames(folder, [to_entry(shard, 1, events, packed=False)], paper.positions)
    [run] = folder.cache.recall(shard, ["r"])
    assert run is not None
    assert not run.seen.beyond

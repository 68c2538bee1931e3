"""An execution that is already over."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recorded_events import Recorded
from runfold import (
    Cancelled,
    Completed,
    Failed,
    Logged,
    NodeFinished,
    NodeStarted,
    RecordedNode,
    Recorder,
    Started,
    Usage,
)
from runfold.protocol.ids import make_run_id

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT_US = int(AT.timestamp()) * 1_000_000


def test_an_execution_has_its_own_times(recorder: Recorder, recorded: Recorded) -> None:
    """All events carry the times of the execution, not of the recording; so does the id."""
    run = recorder.record(
        "import",
        queued_at=AT - timedelta(seconds=5),
        started_at=AT,
        finished_at=AT + timedelta(seconds=2),
        project="acme",
        inputs={"password": "x"},
        outputs={"rows": 1},
        exit_code=0,
        stdout="out",
        stderr="err",
        usage={"input_tokens": 3},
        tags={"a": 1},
        nodes=[
            RecordedNode(
                node="a",
                name="A",
                node_type="t",
                inputs={"i": 1},
                outputs={"o": 1},
                started_at=AT,
                finished_at=AT + timedelta(seconds=1),
                usage=Usage(cost_usd=0.5),
            ),
            {"node": "b", "parents": ["a"], "duration_ms": 250, "error": "no rows"},
        ],
    )
    assert run[:13] == make_run_id(AT_US)[:13]
    seconds = {
        (envelope.type, getattr(event, "node", None)): (envelope.at_us - AT_US) / 1e6
        for envelope, event in recorded()
    }
    assert seconds == {
        ("queued", None): -5,
        ("started", None): 0,
        ("node_started", "a"): 0,
        ("node_finished", "a"): 1,
        ("node_started", "b"): 0,
        ("node_finished", "b"): 0.25,
        ("logged", None): 2,
        ("completed", None): 2,
    }
    events = [event for _, event in recorded()]
    started, end = events[1], events[-1]
    assert isinstance(started, Started)
    assert (started.project, bytes(started.inputs)) == ("acme", b'{"password":"[redacted]"}')
    assert isinstance(end, Completed)
    assert (end.duration_ms, end.exit_code, end.usage) == (2000, 0, Usage(input_tokens=3))
    assert [e.text for e in events if isinstance(e, Logged)] == ["out", "err"]
    ends = {e.node: e for e in events if isinstance(e, NodeFinished)}
    assert (ends["a"].status, ends["a"].duration_ms) == ("completed", 1000)
    assert (ends["b"].status, ends["b"].duration_ms) == ("failed", 250)
    assert {envelope.id for envelope, _ in recorded()} == set(range(len(events)))


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({}, Completed, None),
        ({"exit_code": 2}, Failed, "exit code 2"),
        ({"error": ValueError("x")}, Failed, "x"),
        ({"exit_code": 2, "status": "completed"}, Completed, None),
        ({"status": "failed"}, Failed, None),
        ({"status": "cancelled", "reason": "by hand"}, Cancelled, "by hand"),
        ({"status": "cancelled", "error": "by hand"}, Cancelled, "by hand"),
    ],
)
def test_the_end_follows_from_what_is_known(
    recorder: Recorder, recorded: Recorded, arguments: Any, kind: type, text: str | None
) -> None:
    """An error or an exit code is a failure, unless a status says otherwise."""
    recorder.record("w", started_at=AT, duration_ms=10, **arguments)
    end = recorded()[-1][1]
    assert type(end) is kind
    if isinstance(end, Cancelled):
        assert end.reason == text
    if isinstance(end, Failed):
        assert (end.error.message if end.error else None) == text
    assert end.duration_ms == 10  # type: ignore[attr-defined]


def test_skipped_nodes_did_not_start(recorder: Recorder, recorded: Recorded) -> None:
    """They are planned, and ended."""
    recorder.record("w", started_at=AT, nodes=[{"node": "a", "name": "A", "status": "skipped"}])
    events = [event for _, event in recorded()]
    assert not [event for event in events if isinstance(event, NodeStarted)]
    assert isinstance(events[0], Started)
    assert events[0].nodes is not None
    assert events[0].nodes[0].name == "A"
    assert [e.duration_ms for e in events if isinstance(e, NodeFinished)] == [None]


def test_recording_twice_under_an_id_gives_the_same_events(
    recorder: Recorder, recorded: Recorded
) -> None:
    """A retried import is made of duplicates; a corrected one is not."""
    for outputs in (1, 1, 2):
        assert recorder.record("w", id="mine", started_at=AT, outputs=outputs) == "mine"
    ids = [envelope.id for envelope, _ in recorded()]
    assert len(ids) == 6
    assert len(set(ids)) == 4
    assert all(event_id >> 32 for event_id in ids)


def test_without_an_id_each_recording_is_a_run(recorder: Recorder, recorded: Recorded) -> None:
    """Two executions of the same moment are two."""
    assert recorder.record("w", started_at=AT) != recorder.record("w", started_at=AT)
    assert {envelope.id for envelope, _ in recorded()} == {0, 1}


def test_long_outputs_are_recorded_whole(recorder: Recorder, recorded: Recorded) -> None:
    """A command may write more than an event holds."""
    recorder.record("w", started_at=AT, stdout="x" * 1_000_000)
    texts = [event.text for _, event in recorded() if isinstance(event, Logged)]
    assert sum(map(len, texts)) == 1_000_000


def test_an_end_before_the_beginning_is_put_right(recorder: Recorder, recorded: Recorded) -> None:
    """Times from two clocks do not make a negative duration."""
    recorder.record("w", started_at=AT, finished_at=AT - timedelta(seconds=1))
    assert recorded()[-1][1].duration_ms == 0  # type: ignore[attr-defined]


def test_strange_values_do_not_break_the_import(recorder: Recorder, recorded: Recorded) -> None:
    """Whatever an exporter wrote, the event is one that the contract allows."""
    recorder.record(
        "w",
        started_at=AT,
        duration_ms=-5,
        exit_code="many",  # type: ignore[arg-type]
        nodes=[
            {"node": None, "attempt": "x", "status": "weird", "finished_at": "now", "x": 1},
            {"node": "n" * 300, "usage": {"input_tokens": "x"}, "duration_ms": "y"},
        ],
    )
    assert [envelope.type for envelope, _ in recorded()].count("node_finished") == 2


def test_unsaved_executions_are_not_recorded(recorder: Recorder, recorded: Recorded) -> None:
    """`save=False` holds here too."""
    recorder.record("w", started_at=AT, save=False)
    assert recorded() == []

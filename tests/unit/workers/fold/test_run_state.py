"""The rules of the fold, one by one; `test_folding` holds them against the definition."""

from typing import Any

import pytest

from oracle import Event, to_envelope
from runfold.protocol.ids import run_key_bytes
from runfold_storage.ledger.events import StoredEvent
from runfold_storage.records.rows import NodeRow, RunRow
from runfold_workers.fold.projection import node_row, run_row
from runfold_workers.fold.run_cache import apply_stored, settle
from runfold_workers.fold.run_state import RunState, to_nano_usd


def make_event(event_type: str, at_us: int = 0, event_id: int = 0, **fields: Any) -> Event:
    return {"type": event_type, "run": "r", "id": event_id, "at_us": at_us, **fields}


def state_of(*events: Event) -> RunState:
    state = RunState(0, run_key_bytes("r"), "r", "r")
    for event in events:
        envelope = to_envelope(event)
        stored = StoredEvent(
            0, state.key, envelope.id, envelope.at_us, envelope.type, envelope.body
        )
        apply_stored(state, stored)
    settle(state)
    return state


def run_of(*events: Event) -> RunRow:
    row = run_row(state_of(*events))
    assert row is not None
    return row


def node_of(*events: Event, node: str = "n", attempt: int = 1) -> NodeRow:
    state = state_of(*events)
    return node_row(state, state.attempt(node, attempt))


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([make_event("queued")], "queued"),
        ([make_event("annotated", tags={"a": "b"})], "queued"),
        ([make_event("started")], "running"),
        ([make_event("logged", text="x")], "running"),
        ([make_event("node_finished", node="n")], "running"),
        ([make_event("completed"), make_event("started", 5, 1)], "completed"),
        ([make_event("completed", 3), make_event("failed", 2, 1)], "failed"),
        ([make_event("cancelled", 3), make_event("completed", 3, 1)], "cancelled"),
    ],
)
def test_status(events: list[Event], status: str) -> None:
    """The end that happened first wins; without one, anything that a run does makes it run."""
    assert run_of(*events).status == status
    assert run_of(*events[::-1]).status == status


def test_started_takes_precedence_over_queued() -> None:
    """Field by field: what `started` leaves out stays as `queued` had it."""
    row = run_of(
        make_event("queued", workflow="w1", user="ada", attempt=2),
        make_event("started", 1, 1, workflow="w2", session="s"),
    )

    assert (row.workflow, row.user, row.session, row.attempt) == ("w2", "ada", "s", 2)


def test_heartbeats_alone_make_no_run() -> None:
    """A heartbeat has nothing that a list could show."""
    assert run_row(state_of(make_event("heartbeat"))) is None


def test_a_duration_is_never_negative() -> None:
    """A clock that jumped back makes a run of no length."""
    assert run_of(make_event("started", 1000), make_event("completed", 400, 1)).duration_us == 0


def test_a_duration_that_was_measured_goes_before_clocks() -> None:
    """Milliseconds become whole microseconds."""
    row = run_of(make_event("started"), make_event("completed", 9, 1, duration_ms=0.0015))

    assert row.duration_us == 2


def test_tags_are_text_and_the_latest_wins() -> None:
    """A null takes a tag away, whenever it arrives."""
    events = [
        make_event("started", tags={"a": True, "b": 1, "c": 2.5, "d": "x"}),
        make_event("annotated", 2, 1, tags={"d": None, "b": 7}),
        make_event("annotated", 1, 2, tags={"d": "y", "b": 5}),
    ]

    assert run_of(*events).tags == run_of(*events[::-1]).tags == {"a": "true", "b": "7", "c": "2.5"}


def test_usage_of_a_run() -> None:
    """The end's own figure or the sum over the nodes, field by field; annotations add to it."""
    row = run_of(
        make_event("node_finished", 1, 1, node="n", usage={"input_tokens": 3, "output_tokens": 4}),
        make_event("node_finished", 1, 2, node="n", attempt=2, usage={"output_tokens": 5}),
        make_event("annotated", 2, 3, usage={"output_tokens": 100, "cost_usd": 0.1}),
        make_event("completed", 3, 4, usage={"input_tokens": 50}),
    )

    assert (row.input_tokens, row.output_tokens, row.cost_nano_usd) == (50, 109, 100_000_000)


def test_usage_of_an_end_that_was_replaced_no_longer_counts() -> None:
    """When the earlier end of an attempt arrives late, the run's sum follows."""
    events = [
        make_event("node_finished", 5, 1, node="n", usage={"input_tokens": 3}),
        make_event("node_finished", 4, 2, node="n", usage={"input_tokens": 8}),
    ]

    assert run_of(*events).input_tokens == run_of(*events[::-1]).input_tokens == 8


def test_money_is_exact() -> None:
    """Ten times ten cents are a dollar."""
    assert sum(to_nano_usd(0.1) for _ in range(10)) == 1_000_000_000


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, "completed"),
        ({"error": {}}, "failed"),
        ({"status": "skipped", "error": {}}, "skipped"),
    ],
)
def test_status_of_a_node_that_finished(fields: dict[str, Any], status: str) -> None:
    """What the event says, else by whether there is an error."""
    assert node_of(make_event("node_finished", node="n", **fields)).status == status


def test_a_planned_node_has_a_first_attempt_for_good() -> None:
    """Also when only its second attempt ever starts; the run counts the node by its last one."""
    events = [
        make_event("node_started", 5, 1, node="n", attempt=2),
        make_event("queued", nodes=[{"node": "n", "name": "N", "parents": ["m"]}]),
    ]

    assert node_of(*events).status == "pending"
    assert node_of(*events, attempt=2)[4:8] == ("N", "running", None, ["m"])
    assert run_of(*events)[21:24] == (1, 0, 1)  # total, pending, running


def test_errors_are_cut_for_the_summary() -> None:
    """The ledger has them whole."""
    error = {"type": "T" * 300, "message": "m" * 3000, "node": "n"}
    row = run_of(make_event("failed", error=error))

    assert (row.error_type, row.error_message, row.error_node) == ("T" * 200, "m" * 2000, "n")

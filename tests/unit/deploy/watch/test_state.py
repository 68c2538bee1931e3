"""The state of a watched run or list, and what an event changes."""

import pytest

from runfold_stack.watch.state import ListState, RunState
from watched_runs import NOON, logged, node, page, received, snapshot, summary


def test_a_list_is_kept_newest_first() -> None:
    """Changed runs stay in their place, new ones come on top, removed ones go."""
    watched = ListState(3)
    watched.apply(page(summary("b", second=2), summary("a", second=1)), NOON)
    watched.apply(received("changed", summary("a", "completed", 1)), NOON)
    watched.apply(received("changed", summary("c", second=3)), NOON)
    watched.apply(received("changed", summary("d", second=4)), NOON)
    assert [(run.id, run.status) for run in watched.runs] == [
        ("d", "running"),
        ("c", "running"),
        ("b", "running"),
    ]
    watched.apply(received("removed", {"id": "d"}), NOON)
    watched.apply(received("deleted", {"id": "b"}), NOON)
    assert [(run.id, run.status) for run in watched.runs] == [("c", "running"), ("a", "completed")]


def test_a_list_does_not_grow_without_bounds() -> None:
    """However many runs come by."""
    watched = ListState(5)
    for number in range(1000):
        watched.apply(received("changed", summary(str(number), second=number)), NOON)

    assert len(watched._runs) <= 20
    assert [run.id for run in watched.runs] == ["999", "998", "997", "996", "995"]


def test_a_snapshot_after_a_gap_returns_only_changes() -> None:
    """A reader of lines has seen the rest."""
    watched = ListState(5)
    first = watched.apply(page(summary("b", second=2), summary("a", second=1)), NOON)
    again = watched.apply(
        page(summary("c", second=3), summary("b", second=2), summary("a", "failed", 1)), NOON
    )

    assert [run.id for run in first.runs] == ["a", "b"]
    assert [(run.id, run.status) for run in again.runs] == [("a", "failed"), ("c", "running")]


def test_a_run_s_output_is_returned_once() -> None:
    """A snapshot after a gap has it once more."""
    watched = RunState()
    first = watched.apply(snapshot(summary("r"), output=logged("one", "two\nthree")), NOON)
    again = watched.apply(snapshot(summary("r"), output=logged("one", "two\nthree", "four")), NOON)
    more = watched.apply(received("logged", logged("five", first=3)), NOON)

    assert [line.text for line in first.lines] == ["one", "two", "three"]
    assert [line.text for line in again.lines] == ["four"]
    assert [line.text for line in more.lines] == ["five"]
    assert (list(again.runs), list(again.nodes)) == ([], [])


@pytest.mark.parametrize(
    ("status", "is_over"),
    [("queued", False), ("running", False), ("lost", False), ("completed", True), ("failed", True)],
)
def test_a_run_is_over_at_its_real_end(status: str, is_over: bool) -> None:
    """A lost run may come back."""
    watched = RunState()
    watched.apply(snapshot(summary("r", status)), NOON)
    assert watched.has_ended is is_over


def test_a_deleted_run_is_over() -> None:
    """There is nothing more to come."""
    watched = RunState()
    watched.apply(snapshot(summary("r")), NOON)
    watched.apply(received("deleted", {"id": "r"}), NOON)
    assert watched.has_ended


def test_the_last_attempt_is_the_node() -> None:
    """In whatever order they arrive."""
    watched = RunState()
    watched.apply(snapshot(summary("r"), node("n", attempt=2, status="running")), NOON)
    watched.apply(received("nodes", {"nodes": [node("n", status="failed")]}), NOON)
    assert [(each.attempt, each.status) for each in watched.nodes] == [(2, "running")]

"""What `runfold watch` makes of a stream: its state, its lines and its pictures."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import msgspec
import pytest
from rich.console import Console, RenderableType

from runfold_stack.terminal.formats import BAR_WIDTH, bar, time_axis
from runfold_stack.terminal.output import Output
from runfold_stack.watch.line_output import change_lines, run_line
from runfold_stack.watch.node_tree import grow
from runfold_stack.watch.screens import list_screen, run_screen
from runfold_stack.watch.sse_client import Received, parse
from runfold_stack.watch.state import ListState, RunState
from runfold_storage.read_models.summaries import (
    ErrorSummary,
    NodeCounts,
    NodeFailure,
    NodeSummary,
    RunPage,
    RunSummary,
    Total,
    UsageTotals,
    Watermark,
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def summary(run: str, status: str = "running", second: int = 0, **further: Any) -> RunSummary:
    facts: dict[str, Any] = {
        "project": "default",
        "workflow": "etl",
        "attempt": 1,
        "parent_run": None,
        "trigger_type": None,
        "user": None,
        "session": None,
        "tags": {},
        "queued_at": None,
        "started_at": NOON + timedelta(seconds=second),
        "finished_at": None,
        "duration_ms": None,
        "usage": UsageTotals(),
        "exit_code": None,
        "nodes": NodeCounts(),
        "error": None,
    }
    return RunSummary(id=run, status=status, **(facts | further))


def node(name: str, *parents: str, status: str = "pending", **further: Any) -> NodeSummary:
    facts: dict[str, Any] = {
        "name": name,
        "node_type": None,
        "attempt": 1,
        "started_at": None,
        "finished_at": None,
        "duration_ms": None,
        "usage": UsageTotals(),
        "error": None,
    }
    return NodeSummary(node=name, status=status, parents=list(parents), **(facts | further))


def received(event: str, data: Any) -> Received:
    return Received(event, msgspec.json.encode(data), None)


def page(*runs: RunSummary) -> Received:
    """A snapshot, newest first."""
    total = Total(len(runs), "exact")
    return received("snapshot", RunPage(list(runs), None, None, total, Watermark({}, None, None)))


def logged(*texts: str, first: int = 0) -> dict[str, Any]:
    return {
        "events": [
            {"type": "logged", "run": "r", "id": n, "at": f"2026-11-21T12:00:{n:02}Z", "text": text}
            for n, text in enumerate(texts, first)
        ]
    }


def snapshot(
    run: RunSummary, *nodes: NodeSummary, output: dict[str, Any] | None = None
) -> Received:
    events = [] if output is None else output["events"]
    return received("snapshot", {"run": run, "nodes": nodes, "output": events})


def drawn(picture: RenderableType, width: int = 80) -> list[str]:
    console = Console(file=StringIO(), width=width, markup=False)
    with console.capture() as capture:
        console.print(picture)
    return [line.rstrip() for line in capture.get().splitlines()]


def window(width: int = 80, height: int = 24) -> Output:
    output = Output()
    output.__dict__["console"] = Console(file=StringIO(), width=width, height=height, markup=False)
    return output


def test_events_are_read_as_the_standard_says() -> None:
    """Comments are no events; an id alone moves the id on; data may have several lines."""
    stream = (
        b": keep-alive\nid: 7\n\nretry: 1000\n\nid: 8\nevent: changed\ndata: {}\n\n"
        b"data:1\r\ndata: 2\r\n\r\nevent: cut off\ndata: {"
    )

    assert list(parse(iter(stream.splitlines(keepends=True)))) == [
        ("", b"", "7"),
        ("changed", b"{}", "8"),
        ("message", b"1\n2", None),
    ]


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


def test_a_snapshot_after_a_gap_tells_only_what_is_new() -> None:
    """A reader of lines has seen the rest."""
    watched = ListState(5)
    first = watched.apply(page(summary("b", second=2), summary("a", second=1)), NOON)
    again = watched.apply(
        page(summary("c", second=3), summary("b", second=2), summary("a", "failed", 1)), NOON
    )

    assert [run.id for run in first] == ["a", "b"]
    assert [(run.id, run.status) for run in again] == [("a", "failed"), ("c", "running")]


def test_a_run_s_output_is_told_once() -> None:
    """A snapshot after a gap has it once more."""
    watched = RunState()
    first = watched.apply(snapshot(summary("r"), output=logged("one", "two\nthree")))
    again = watched.apply(snapshot(summary("r"), output=logged("one", "two\nthree", "four")))
    more = watched.apply(received("logged", logged("five", first=3)))

    assert [line.text for line in first.lines] == ["one", "two", "three"]
    assert [line.text for line in again.lines] == ["four"]
    assert [line.text for line in more.lines] == ["five"]
    assert (again.run, list(again.nodes)) == (None, [])


@pytest.mark.parametrize(
    ("status", "is_over"),
    [("queued", False), ("running", False), ("lost", False), ("completed", True), ("failed", True)],
)
def test_a_run_is_over_at_its_real_end(status: str, is_over: bool) -> None:
    """One that is lost may speak again."""
    watched = RunState()
    watched.apply(snapshot(summary("r", status)))
    assert watched.has_ended is is_over


def test_a_deleted_run_is_over() -> None:
    """There is nothing more to come."""
    watched = RunState()
    watched.apply(snapshot(summary("r")))
    watched.apply(received("deleted", {"id": "r"}))
    assert watched.has_ended


def test_the_last_attempt_is_the_node() -> None:
    """In whatever order they are told."""
    watched = RunState()
    watched.apply(snapshot(summary("r"), node("n", attempt=2, status="running")))
    watched.apply(received("nodes", {"nodes": [node("n", status="failed")]}))
    assert [(each.attempt, each.status) for each in watched.nodes] == [(2, "running")]


def test_a_tree_puts_each_node_under_its_last_parent() -> None:
    """So that it stands below everything that it waits for; the others are named."""
    nodes = [
        node("report", "extract", "train"),
        node("extract"),
        node("clean", "extract"),
        node("train", "clean"),
        node("other", "not there"),
    ]

    assert [(each.guides, each.node.node, each.also_after) for each in grow(nodes)] == [
        ("", "extract", []),
        ("└─ ", "clean", []),
        ("   └─ ", "train", []),
        ("      └─ ", "report", ["extract"]),
        ("", "other", []),
    ]


def test_siblings_are_joined_by_a_line() -> None:
    """Also past what hangs below the first."""
    nodes = [node("a"), node("b", "a"), node("c", "b"), node("d", "a")]
    assert [each.guides + each.node.node for each in grow(nodes)] == [
        "a",
        "├─ b",
        "│  └─ c",
        "└─ d",
    ]


def test_a_circle_of_parents_shows_every_node_once() -> None:
    """It is not ours to judge what runners say."""
    nodes = [node("a", "c"), node("b", "a"), node("c", "b"), node("d", "d")]
    assert sorted(each.node.node for each in grow(nodes)) == ["a", "b", "c", "d"]


def test_a_long_chain_is_no_trouble() -> None:
    """Deeper than Python's stack."""
    nodes = [node(str(n), *([str(n - 1)] if n else [])) for n in reversed(range(3000))]
    assert [each.node.node for each in grow(nodes)] == [str(n) for n in range(3000)]


def test_bars_lie_where_the_nodes_ran() -> None:
    """What runs reaches to the end; what has not started has none."""
    half = NOON + timedelta(seconds=5)
    nodes = [
        node("a", started_at=NOON, finished_at=half),
        node("b", started_at=half),
        node("c"),
    ]
    now = NOON + timedelta(seconds=10)
    line = time_axis(nodes, now)

    assert [bar(each, line, now) for each in nodes] == [
        "━" * (BAR_WIDTH // 2),
        " " * (BAR_WIDTH // 2) + "━" * (BAR_WIDTH // 2),
        "",
    ]
    assert time_axis([node("c")], now) is None


def test_lines_tell_output_nodes_and_run() -> None:
    """One line each, whatever is in the names."""
    watched = RunState()
    failed = node(
        "load\x1b[2J", status="failed", attempt=2, error=NodeFailure("OSError", "full\ndisk")
    )
    error = ErrorSummary("OSError", "full\ndisk", "load")
    news = watched.apply(
        snapshot(summary("r", "failed", error=error), failed, output=logged("a\x07b"))
    )

    assert list(change_lines(news, NOON)) == [
        "12:00:00Z  log        a\ufffdb",
        "12:00:00Z  failed     node  load\ufffd[2J  (attempt 2)  OSError: full",
        "12:00:00Z  failed     r  etl  load: OSError: full",
    ]
    assert run_line(summary("q", nodes=NodeCounts(total=4, completed=3)), NOON) == (
        "12:00:00Z  running    q  etl  0 ms  3/4 nodes"
    )


def nodes_of(number: int) -> Iterator[NodeSummary]:
    for n in range(number):
        yield node(f"n{n}", status="running" if n == 40 else "completed", started_at=NOON)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 50), (70, 12)])
def test_a_picture_of_a_run_fits_the_window(width: int, height: int) -> None:
    """However many nodes and lines there are; what runs is among what is shown."""
    watched = RunState()
    lines = logged(*(f"line {n} " + "x" * 200 for n in range(50)))
    watched.apply(snapshot(summary("r"), *nodes_of(60), output=lines))

    shown = drawn(run_screen(watched, "run r", None, window(width, height), NOON), width)

    assert len(shown) < height
    assert max(map(len, shown)) <= width
    assert shown[0] == "run r  ● live"
    assert any(line.startswith("n40 ") and "running" in line for line in shown)
    assert shown[-1].startswith("line 49 x")
    assert any("more nodes" in line for line in shown)


def test_a_picture_of_a_list_fits_the_window() -> None:
    """With the newest runs, and what is wrong with the connection."""
    watched = ListState(50)
    for number in range(50):
        watched.apply(received("changed", summary(f"run {number}", second=number)), NOON)

    shown = drawn(list_screen(watched, "runs", "the API is unavailable", window(), NOON))

    assert shown[0] == "runs  ○ the API is unavailable"
    assert 15 < len(shown) < 24
    assert shown[3].startswith("running  run 49")

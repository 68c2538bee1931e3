"""The views of a run and of a list: live, and as lines."""

from collections.abc import Iterator
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from runfold_stack.terminal.output import Output
from runfold_stack.watch.screens import change_lines, grow, list_screen, run_screen
from runfold_stack.watch.state import Changes, ListState, RunState
from runfold_storage.read_models.summaries import (
    ErrorSummary,
    NodeCounts,
    NodeFailure,
    NodeSummary,
)
from watched_runs import NOON, logged, node, received, snapshot, summary


def drawn(picture: RenderableType, width: int = 80) -> list[str]:
    console = Console(file=StringIO(), width=width, markup=False)
    with console.capture() as capture:
        console.print(picture)
    return [line.rstrip() for line in capture.get().splitlines()]


def window(width: int = 80, height: int = 24) -> Output:
    output = Output()
    output.__dict__["console"] = Console(file=StringIO(), width=width, height=height, markup=False)
    return output


def nodes_of(number: int) -> Iterator[NodeSummary]:
    for n in range(number):
        yield node(f"n{n}", status="running" if n == 40 else "completed", started_at=NOON)


def test_lines_show_output_nodes_and_run() -> None:
    """One line each, whatever is in the names."""
    watched = RunState()
    failed = node(
        "load\x1b[2J", status="failed", attempt=2, error=NodeFailure("OSError", "full\ndisk")
    )
    error = ErrorSummary("OSError", "full\ndisk", "load")
    news = watched.apply(
        snapshot(summary("r", "failed", error=error), failed, output=logged("a\x07b")), NOON
    )

    assert list(change_lines(news, NOON)) == [
        "12:00:00Z  log        a\ufffdb",
        "12:00:00Z  failed     node  load\ufffd[2J  (attempt 2)  OSError: full",
        "12:00:00Z  failed     r  etl  load: OSError: full",
    ]
    queued = summary("q", nodes=NodeCounts(total=4, completed=3))
    assert list(change_lines(Changes([queued]), NOON)) == [
        "12:00:00Z  running    q  etl  0 ms  3/4 nodes"
    ]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 50), (70, 12)])
def test_a_picture_of_a_run_fits_the_window(width: int, height: int) -> None:
    """However many nodes and lines there are; what runs is among what is shown."""
    watched = RunState()
    lines = logged(*(f"line {n} " + "x" * 200 for n in range(50)))
    watched.apply(snapshot(summary("r"), *nodes_of(60), output=lines), NOON)

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
    """Events with a cycle are shown as they are."""
    nodes = [node("a", "c"), node("b", "a"), node("c", "b"), node("d", "d")]
    assert sorted(each.node.node for each in grow(nodes)) == ["a", "b", "c", "d"]


def test_a_long_chain_is_no_trouble() -> None:
    """Deeper than Python's stack."""
    nodes = [node(str(n), *([str(n - 1)] if n else [])) for n in reversed(range(3000))]
    assert [each.node.node for each in grow(nodes)] == [str(n) for n in range(3000)]

"""The views of a list and of a run: live, or as lines for files, pipes and dumb terminals."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from graphlib import CycleError, TopologicalSorter
from typing import Final, NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from runfold_stack.terminal.formats import TimeAxis, duration, moment, took_ms
from runfold_stack.terminal.output import (
    STYLES,
    Output,
    cell,
    error_line,
    node_name,
    plain,
    shown_name,
)
from runfold_stack.terminal.run_view import error_of, nodes_done, runs_table
from runfold_stack.terminal.tables import Table
from runfold_storage.read_models.summaries import NodeSummary

from .state import Changes, Line, ListState, RunState

_MIN_LINES: Final = 5
_WINDOW_FRAME: Final = 2
"""Lines for the prompt and the heading."""
_NODES_FRAME: Final = 4
"""Lines for a blank line above and below, the column names, and the number of omitted nodes."""
_OPEN: Final = ("running", "failed")


class Branch(NamedTuple):
    """A node, the lines that lead to it in the drawing, and its other parents."""

    guides: str
    node: NodeSummary
    also_after: list[str]


def list_screen(
    watched: ListState, title: str, problem: str | None, output: Output, now: datetime
) -> RenderableType:
    """Render as many runs as the window has room for."""
    heading = _heading(title, problem)
    shown = watched.runs[: max(output.console.height - _WINDOW_FRAME - 2, 1)]
    if not shown:
        return Group(heading, Text("no runs yet", "dim"))
    return Group(heading, Text(), _fitted(runs_table(shown, now), output))


def run_screen(
    watched: RunState, title: str, problem: str | None, output: Output, now: datetime
) -> RenderableType:
    """Render the summary, the nodes, and the end of the output in the remaining room."""
    run = watched.run
    heading = _heading(title, problem, is_over=watched.has_ended)
    if run is None:
        return heading
    facts = (
        shown_name(run.workflow),
        moment(run.started_at or run.queued_at),
        duration(took_ms(run, now)),
        "" if run.exit_code is None else f"exit code {run.exit_code}",
    )
    status = (run.status, STYLES.get(run.status, ""))
    head = [heading, _line_of(status, "  ", "  ".join(filter(None, facts)))]
    if error := error_of(run):
        head.append(_line_of((error, STYLES["failed"])))
    room = output.console.height - len(head) - _WINDOW_FRAME
    wanted = max(_MIN_LINES, room - len(watched.nodes) - _NODES_FRAME)
    wanted = max(min(wanted, len(watched.lines), room - _NODES_FRAME - 1), 0)
    nodes = _nodes(watched.nodes, max(room - wanted - _NODES_FRAME, 1), output, now)
    lines = [_output_line(line) for line in list(watched.lines)[-wanted:]] if wanted else []
    return Group(*head, *nodes, *([Text(), *lines] if lines else []))


def change_lines(changes: Changes, now: datetime) -> Iterator[str]:
    """Yield lines for output, nodes and runs, in this order."""
    for line in changes.lines:
        where = f"{cell(line.node)}: " if line.node else ""
        yield _words(now, f"{line.stream:<9}", where + plain(line.text))
    for node in changes.nodes:
        failure = node.error
        error = "" if failure is None else error_line(failure.type, failure.message)
        attempt = f"(attempt {node.attempt})" if node.attempt > 1 else ""
        took = duration(node.duration_ms)
        yield _words(now, f"{node.status:<9}", "node", cell(node.name), attempt, took, error)
    for run in changes.runs:
        nodes = nodes_done(run)
        names = (f"{run.status:<9}", cell(run.id), shown_name(run.workflow))
        took, progress = duration(took_ms(run, now)), nodes and f"{nodes} nodes"
        yield _words(now, *names, took, progress, error_of(run))


def _words(now: datetime, *words: str) -> str:
    return "  ".join([f"{now:%H:%M:%SZ}", *filter(None, words)]).rstrip()


def _heading(title: str, problem: str | None, *, is_over: bool = False) -> Text:
    state = ("● live", "green") if problem is None else (f"○ {plain(problem)}", "yellow")
    return _line_of((plain(title), "bold"), "  ", ("", "") if is_over else state)


def _line_of(*parts: str | tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _fitted(table: Table, output: Output) -> RenderableType:
    return table.fit(output.console.width)[0]


def _nodes(
    nodes: Sequence[NodeSummary], room: int, output: Output, now: datetime
) -> list[RenderableType]:
    if not nodes:
        return []
    branches = grow(nodes)
    shown = _select(branches, room)
    axis = TimeAxis(nodes, now)
    table = Table("NODE", "STATUS", "DURATION", "TIME", right=("DURATION",))
    for branch in shown:
        node = branch.node
        style = STYLES.get(node.status, "")
        others = ", ".join(map(cell, branch.also_after[:2]))
        more = f" and {len(branch.also_after) - 2} more" if len(branch.also_after) > 2 else ""
        table.add_row(
            branch.guides + node_name(node) + (f" (and after {others}{more})" if others else ""),
            Text(node.status, style),
            duration(took_ms(node, now)),
            Text(axis.bar(node), style),
        )
    rows: list[RenderableType] = [Text(), _fitted(table, output)]
    if len(shown) < len(branches):
        rows.append(Text(f"… and {len(branches) - len(shown)} more nodes", "dim"))
    return rows


def _select(branches: list[Branch], room: int) -> list[Branch]:
    """Return the branches that fit, preferring running and failed nodes."""
    by_priority = sorted(enumerate(branches), key=lambda each: each[1].node.status not in _OPEN)
    return [branch for _, branch in sorted(by_priority[:room], key=lambda each: each[0])]


def grow(nodes: Sequence[NodeSummary]) -> list[Branch]:
    """Arrange nodes as a tree, each under its deepest parent; those after a cycle are roots."""
    by_name = {node.node: node for node in nodes}
    parents = {
        name: [each for each in node.parents if each in by_name] for name, node in by_name.items()
    }
    depths: dict[str, int] = {}
    sorter = TopologicalSorter(parents)
    with suppress(CycleError):  # the nodes before the cycle are still sorted
        sorter.prepare()
    while ready := sorter.get_ready():
        for name in ready:
            depths[name] = 1 + max((depths[each] for each in parents[name]), default=0)
        sorter.done(*ready)
    children: dict[str | None, list[NodeSummary]] = {}
    above: dict[str, str | None] = {}
    for name, node in by_name.items():
        lower = parents[name] if name in depths else []
        above[name] = max(lower, key=depths.__getitem__, default=None)
        children.setdefault(above[name], []).append(node)
    branches: list[Branch] = []
    waiting = [("", node, True) for node in reversed(children.get(None, []))]
    while waiting:
        indent, node, is_last = waiting.pop()
        parent = above[node.node]
        guides = "" if parent is None else indent + ("└─ " if is_last else "├─ ")
        others = [each for each in parents[node.node] if each != parent]
        branches.append(Branch(guides, node, others))
        below = children.get(node.node, [])
        further = "" if parent is None else indent + ("   " if is_last else "│  ")
        waiting += [(further, child, number == 0) for number, child in enumerate(reversed(below))]
    return branches


def _output_line(line: Line) -> Text:
    where = f"{cell(line.node)}: " if line.node else ""
    style = STYLES["failed"] if line.stream == "stderr" else ""
    return _line_of((where, "dim"), (plain(line.text), style))

"""The live views of a list and of a run, rendered to fit the terminal's window."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from runfold_stack.terminal.formats import bar, duration, moment, time_axis
from runfold_stack.terminal.output import STYLES, Output, cell, make_table, plain, shown_name
from runfold_stack.terminal.run_table import error_words, runs_table, took_ms
from runfold_storage.read_models.summaries import NodeSummary, RunSummary

from .node_tree import Branch, grow
from .state import Line, ListState, RunState

_MIN_LINES: Final = 5
_WINDOW_FRAME: Final = 2
"""Lines for the prompt and the heading."""
_NODES_FRAME: Final = 4
"""Lines for a blank line above and below, the column names, and the number of omitted nodes."""
_OPEN: Final = ("running", "failed")


def list_screen(
    watched: ListState, title: str, problem: str | None, output: Output, now: datetime
) -> RenderableType:
    """Render as many runs as the window has room for."""
    runs = watched.runs
    heading = _heading(title, problem)
    if not runs:
        return Group(heading, Text("no runs yet", "dim"))
    shown = runs[: max(output.console.height - _WINDOW_FRAME - 2, 1)]
    return Group(heading, Text(), output.fitted(runs_table(shown, now)))


def run_screen(
    watched: RunState, title: str, problem: str | None, output: Output, now: datetime
) -> RenderableType:
    """Render the summary, the nodes, and the end of the output in the remaining room."""
    run = watched.run
    heading = _heading(title, problem, is_over=watched.has_ended)
    if run is None:
        return heading
    head = [heading, _head(run, now)]
    if error := error_words(run):
        head.append(Text(error, STYLES["failed"], no_wrap=True, overflow="ellipsis"))
    room = output.console.height - len(head) - _WINDOW_FRAME
    wanted = max(_MIN_LINES, room - len(watched.nodes) - _NODES_FRAME)
    wanted = max(min(wanted, len(watched.lines), room - _NODES_FRAME - 1), 0)
    nodes = _nodes(watched.nodes, max(room - wanted - _NODES_FRAME, 1), output, now)
    lines = [_output_line(line) for line in list(watched.lines)[-wanted:]] if wanted else []
    return Group(*head, *nodes, *([Text(), *lines] if lines else []))


def _heading(title: str, problem: str | None, *, is_over: bool = False) -> Text:
    state = ("● live", "green") if problem is None else (f"○ {plain(problem)}", "yellow")
    if is_over:
        state = ("", "")
    return Text.assemble((plain(title), "bold"), "  ", state, no_wrap=True, overflow="ellipsis")


def _head(run: RunSummary, now: datetime) -> Text:
    return Text.assemble(
        (run.status, STYLES.get(run.status, "")),
        "  ",
        "  ".join(
            filter(
                None,
                (
                    shown_name(run.workflow),
                    moment(run.started_at or run.queued_at),
                    duration(took_ms(run, now)),
                    "" if run.exit_code is None else f"exit code {run.exit_code}",
                ),
            )
        ),
        no_wrap=True,
        overflow="ellipsis",
    )


def _nodes(
    nodes: Sequence[NodeSummary], room: int, output: Output, now: datetime
) -> list[RenderableType]:
    if not nodes:
        return []
    branches = grow(nodes)
    shown = _select(branches, room)
    axis = time_axis(nodes, now)
    table = make_table("NODE", "STATUS", "DURATION", "TIME", right=("DURATION",))
    for branch in shown:
        node = branch.node
        style = STYLES.get(node.status, "")
        table.add_row(
            _name(branch),
            Text(node.status, style),
            duration(_node_ms(node, now)),
            Text(bar(node, axis, now), style),
        )
    rows: list[RenderableType] = [Text(), output.fitted(table)]
    if len(shown) < len(branches):
        rows.append(Text(f"… and {len(branches) - len(shown)} more nodes", "dim"))
    return rows


def _select(branches: list[Branch], room: int) -> list[Branch]:
    """Return the branches that fit, preferring running and failed nodes."""
    if len(branches) <= room:
        return branches
    by_priority = sorted(
        range(len(branches)),
        key=lambda index: (branches[index].node.status not in _OPEN, index),
    )
    return [branches[index] for index in sorted(by_priority[:room])]


def _name(branch: Branch) -> str:
    name = branch.guides + cell(branch.node.name)
    if branch.node.attempt > 1:
        name += f" (attempt {branch.node.attempt})"
    if branch.also_after:
        others = ", ".join(cell(each) for each in branch.also_after[:2])
        more = len(branch.also_after) - 2
        name += f" (and after {others}{f' and {more} more' if more > 0 else ''})"
    return name


def _node_ms(node: NodeSummary, now: datetime) -> float | None:
    if node.duration_ms is None and node.status == "running" and node.started_at is not None:
        return max(0.0, (now - node.started_at).total_seconds() * 1000)
    return node.duration_ms


def _output_line(line: Line) -> Text:
    where = f"{cell(line.node)}: " if line.node else ""
    style = STYLES["failed"] if line.stream == "stderr" else ""
    return Text.assemble(
        (where, "dim"), (plain(line.text), style), no_wrap=True, overflow="ellipsis"
    )

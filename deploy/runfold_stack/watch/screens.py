"""What is watched as it fills a terminal's window; made anew for each picture."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from runfold_stack.terminal.formats import duration, moment
from runfold_stack.terminal.gantt import bar, time_line
from runfold_stack.terminal.output import STYLES, Output, cell, make_table, plain, shown_name
from runfold_stack.terminal.run_table import error_words, runs_table, took_ms
from runfold_storage.read_models.summaries import NodeSummary, RunSummary

from .list_state import ListState
from .node_tree import Branch, grow
from .run_state import Line, RunState

_LEAST_LINES: Final = 5
_EDGE: Final = 2
"""Lines that the prompt and the heading take."""
_AROUND_NODES: Final = 4
"""An empty line above and below, the columns' names, and how many there are besides."""
_OPEN: Final = ("running", "failed")


def list_screen(
    watched: ListState, title: str, trouble: str | None, output: Output, now: datetime
) -> RenderableType:
    """As many runs as there is room for."""
    runs = watched.runs
    heading = _heading(title, trouble)
    if not runs:
        return Group(heading, Text("no runs yet", "dim"))
    shown = runs[: max(output.console.height - _EDGE - 2, 1)]
    return Group(heading, Text(), output.fitted(runs_table(shown, now)))


def run_screen(
    watched: RunState, title: str, trouble: str | None, output: Output, now: datetime
) -> RenderableType:
    """Head, nodes, and the end of the output in what room there is."""
    run = watched.run
    heading = _heading(title, trouble, is_over=watched.has_ended)
    if run is None:
        return heading
    head = [heading, _head(run, now)]
    if error := error_words(run):
        head.append(Text(error, STYLES["failed"], no_wrap=True, overflow="ellipsis"))
    room = output.console.height - len(head) - _EDGE
    wanted = max(_LEAST_LINES, room - len(watched.nodes) - _AROUND_NODES)
    wanted = max(min(wanted, len(watched.lines), room - _AROUND_NODES - 1), 0)
    nodes = _nodes(watched.nodes, max(room - wanted - _AROUND_NODES, 1), output, now)
    lines = [_output_line(line) for line in list(watched.lines)[-wanted:]] if wanted else []
    return Group(*head, *nodes, *([Text(), *lines] if lines else []))


def _heading(title: str, trouble: str | None, *, is_over: bool = False) -> Text:
    state = ("● live", "green") if trouble is None else (f"○ {plain(trouble)}", "yellow")
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
    shown = _most_telling(branches, room)
    line = time_line(nodes, now)
    table = make_table("NODE", "STATUS", "DURATION", "TIME", right=("DURATION",))
    for branch in shown:
        node = branch.node
        style = STYLES.get(node.status, "")
        table.add_row(
            _name(branch),
            Text(node.status, style),
            duration(_node_ms(node, now)),
            Text(bar(node, line, now), style),
        )
    rows: list[RenderableType] = [Text(), output.fitted(table)]
    if len(shown) < len(branches):
        rows.append(Text(f"… and {len(branches) - len(shown)} more nodes", "dim"))
    return rows


def _most_telling(branches: list[Branch], room: int) -> list[Branch]:
    """In a window that has not room for all: what runs or failed, then what is around that."""
    if len(branches) <= room:
        return branches
    places = sorted(
        range(len(branches)),
        key=lambda place: (branches[place].node.status not in _OPEN, place),
    )
    return [branches[place] for place in sorted(places[:room])]


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

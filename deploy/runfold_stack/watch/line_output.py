"""Changes as lines of text, for files, pipes and dumb terminals."""

from collections.abc import Iterator
from datetime import datetime

from runfold_stack.terminal.formats import duration
from runfold_stack.terminal.output import cell, plain, shown_name
from runfold_stack.terminal.run_table import error_words, nodes_done, took_ms
from runfold_storage.read_models.summaries import NodeSummary, RunSummary

from .state import RunChanges


def run_line(run: RunSummary, now: datetime) -> str:
    """Return a line with a run's state."""
    nodes = nodes_done(run)
    words = [
        f"{run.status:<9}",
        cell(run.id),
        shown_name(run.workflow),
        duration(took_ms(run, now)),
        nodes and f"{nodes} nodes",
        error_words(run),
    ]
    return _line(now, words)


def change_lines(changes: RunChanges, now: datetime) -> Iterator[str]:
    """Yield lines for output, nodes and the run, in this order."""
    for line in changes.lines:
        where = f"{cell(line.node)}: " if line.node else ""
        yield _line(now, [f"{line.stream:<9}", where + plain(line.text)])
    for node in changes.nodes:
        yield _node_line(node, now)
    if changes.run is not None:
        yield run_line(changes.run, now)


def _node_line(node: NodeSummary, now: datetime) -> str:
    attempt = f"(attempt {node.attempt})" if node.attempt > 1 else ""
    error = ""
    if node.error is not None:
        parts = [node.error.type, (node.error.message or "").partition("\n")[0]]
        error = cell(": ".join(part for part in parts if part))
    words = [
        f"{node.status:<9}",
        "node",
        cell(node.name),
        attempt,
        duration(node.duration_ms),
        error,
    ]
    return _line(now, words)


def _line(now: datetime, words: list[str]) -> str:
    return "  ".join([f"{now:%H:%M:%SZ}", *filter(None, words)]).rstrip()

"""The table of runs, and the columns that other views share with it."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.text import Text

from runfold_storage.read_models.summaries import RunSummary

from .formats import dollars, duration, moment
from .output import STYLES, cell, make_table, shown_name

if TYPE_CHECKING:
    from rich.table import Table


def runs_table(runs: Sequence[RunSummary], now: datetime) -> "Table":
    """Return a table of runs; columns that are empty for all of them are omitted."""
    columns = ["STATUS", "RUN", "WORKFLOW", "STARTED", "DURATION", "NODES", "COST", "ERROR"]
    if {run.project for run in runs} - {"default"}:
        columns.insert(3, "PROJECT")
    if not any(run.usage.cost_usd for run in runs):
        columns.remove("COST")
    if not any(run.error for run in runs):
        columns.remove("ERROR")
    table = make_table(*columns, right=("DURATION", "NODES", "COST"))
    for run in runs:
        cells = _cells(run, now)
        table.add_row(*(cells[column] for column in columns))
    return table


def took_ms(run: RunSummary, now: datetime) -> float | None:
    """Return a run's duration in milliseconds; for a running one, the time until now."""
    if run.duration_ms is None and run.status == "running" and run.started_at is not None:
        return max(0.0, (now - run.started_at).total_seconds() * 1000)
    return run.duration_ms


def error_words(run: RunSummary) -> str:
    """Return the error's node, type and first line, without control characters."""
    if run.error is None:
        return ""
    parts = [run.error.node, run.error.type, (run.error.message or "").partition("\n")[0]]
    return cell(": ".join(part for part in parts if part))


def nodes_done(run: RunSummary) -> str:
    """Return finished and total nodes, as in `3/7`."""
    nodes = run.nodes
    done = nodes.completed + nodes.failed + nodes.skipped + nodes.cancelled
    return f"{done}/{nodes.total}" if nodes.total else ""


def _cells(run: RunSummary, now: datetime) -> dict[str, Any]:
    return {
        "STATUS": Text(run.status, STYLES.get(run.status, ""))
        + ("  (incomplete)" if run.incomplete else ""),
        "RUN": cell(run.id),
        "WORKFLOW": shown_name(run.workflow),
        "PROJECT": shown_name(run.project),
        "STARTED": moment(run.started_at or run.queued_at),
        "DURATION": duration(took_ms(run, now)),
        "NODES": nodes_done(run),
        "COST": dollars(run.usage.cost_usd),
        "ERROR": error_words(run),
    }

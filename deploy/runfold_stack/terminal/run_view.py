"""The table of runs, and the details of one run: summary, error, nodes with time bars, payloads."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw
from rich.text import Text

from runfold_storage.read_models.summaries import RunSummary

from .formats import TimeAxis, dollars, duration, moment, tokens, took_ms
from .output import STYLES, Output, cell, error_line, node_name, plain, shown_name
from .tables import Table

if TYPE_CHECKING:  # slow to import, and `watch` needs only the table of runs
    from runfold_storage.queries.run.detail import NodeDetail, RunDetail

MAX_NODES: Final = 200
_MAX_PAYLOAD: Final = 2000


def runs_table(runs: Sequence[RunSummary], now: datetime) -> Table:
    """Return a table of runs, with projects if any is not the default."""
    has_projects = any(run.project != "default" for run in runs)
    columns = ("STATUS", "RUN", "WORKFLOW", "PROJECT", "STARTED", "DURATION", "NODES", "COST")
    table = Table(*columns, "ERROR", right=("DURATION", "NODES", "COST"))
    for run in runs:
        mark = "  (incomplete)" if run.incomplete else ""
        table.add_row(
            Text(run.status, STYLES.get(run.status, "")) + mark,
            cell(run.id),
            shown_name(run.workflow),
            shown_name(run.project) if has_projects else "",
            moment(run.started_at or run.queued_at),
            duration(took_ms(run, now)),
            nodes_done(run),
            dollars(run.usage.cost_usd),
            error_of(run),
        )
    return table


def error_of(run: RunSummary) -> str:
    """Return the error's node, type and first line, without control characters."""
    error = run.error
    return "" if error is None else error_line(error.node, error.type, error.message)


def nodes_done(run: RunSummary) -> str:
    """Return finished and total nodes, as in `3/7`."""
    nodes = run.nodes
    done = nodes.completed + nodes.failed + nodes.skipped + nodes.cancelled
    return f"{done}/{nodes.total}" if nodes.total else ""


def print_run(run: "RunDetail", output: Output, *, now: datetime) -> None:
    """Print everything except events and output."""
    for name, value in _head(run, now).items():
        if value:
            line = Text.assemble((f"{name:<10}", "bold"), value)
            output.console.print(line, soft_wrap=True)
    if note := _retention_note(run):
        output.line()
        output.line(note, "yellow")
    if run.error is not None:
        _print_error(f"error at node {run.error.node}" if run.error.node else "error", run, output)
    if run.nodes:
        output.line()
        _print_nodes(run, output, now)
    for title in ("inputs", "outputs", "metadata"):
        payload = getattr(run, title)
        if payload is not None:
            output.line()
            output.line(title, "bold")
            output.line(_shortened(payload))


def _head(run: "RunDetail", now: datetime) -> dict[str, Text | str]:
    status = Text(run.status, STYLES.get(run.status, ""))
    if run.exit_code is not None:
        status += f"  (exit code {run.exit_code})"
    if run.reason:
        status += f"  ({plain(run.reason)})"
    note = "incomplete: neither `queued` nor `started` has arrived" if run.incomplete else ""
    return {
        "run": plain(run.id),
        "workflow": shown_name(run.workflow),
        "project": "" if run.project == "default" else shown_name(run.project),
        "note": note,
        "status": status,
        "started": moment(run.started_at or run.queued_at),
        "duration": duration(took_ms(run, now)),
        "attempt": str(run.attempt) if run.attempt > 1 else "",
        "trigger": plain(run.trigger_type or ""),
        "parent": plain(run.parent_run or ""),
        "user": plain(run.user or ""),
        "session": plain(run.session or ""),
        "tags": plain(" ".join(f"{key}={value}" for key, value in sorted(run.tags.items()))),
        "tokens": tokens(run.usage),
        "cost": dollars(run.usage.cost_usd),
    }


def _retention_note(run: "RunDetail") -> str | None:
    """Return what retention has removed from the run or archived; None for a complete run."""
    if run.source == "archive":
        without = ", without its payloads" if run.payloads == "removed" else ""
        return f"from the archive, as this run has expired{without}"
    when = f" on {run.payloads_removed_at:%Y-%m-%d}" if run.payloads_removed_at else ""
    match run.payloads:
        case "archived":
            return f"inputs, outputs and events are from the archive: they expired{when}"
        case "removed":
            return f"inputs, outputs and events have expired{when}"
        case "unavailable":
            unreadable = "and the archive cannot be read at the moment"
            return f"inputs, outputs and events have expired{when}, {unreadable}"
        case _:
            return None


def _print_nodes(run: "RunDetail", output: Output, now: datetime) -> None:
    bars = ["TIME"] if output.is_terminal else []
    table = Table("NODE", "STATUS", "AFTER", "DURATION", *bars, right=("DURATION",))
    axis = TimeAxis(run.nodes, now)
    for node in run.nodes[:MAX_NODES]:
        style = STYLES.get(node.status, "")
        more = f" and {len(node.parents) - 3} more" if len(node.parents) > 3 else ""
        table.add_row(
            node_name(node),
            Text(node.status, style),
            ", ".join(map(cell, node.parents[:3])) + more,
            duration(node.duration_ms),
            *(Text(axis.bar(node), style) for _ in bars),
        )
    output.table(table)
    if len(run.nodes) > MAX_NODES:
        output.line(f"… and {len(run.nodes) - MAX_NODES} more: `--json` prints all")
    for node in run.nodes[:MAX_NODES]:
        if node.error is not None and (run.error is None or run.error.node != node.node):
            _print_error(f"error of {node.name}", node, output)


def _print_error(title: str, failed: "RunDetail | NodeDetail", output: Output) -> None:
    error = failed.error
    assert error is not None
    output.line()
    words = ": ".join(part for part in (error.type, error.message) if part)
    output.line(plain(f"{title}: {words}"), STYLES["failed"])
    if error.stack:
        output.line(plain(error.stack.rstrip()))


def _shortened(payload: Raw) -> str:
    value = msgspec.json.decode(payload)
    if isinstance(value, dict) and value:
        text = "\n".join(f"  {key}: {_inline(item)}" for key, item in value.items())
    else:
        text = f"  {_inline(value)}"
    text = plain(text)
    cut = f"{text[:_MAX_PAYLOAD]} … ({len(text):,} characters; `--json` prints all)"
    return text if len(text) <= _MAX_PAYLOAD else cut


def _inline(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()

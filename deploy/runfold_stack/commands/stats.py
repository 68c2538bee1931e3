"""`runfold stats`: show counts, durations, success rates and cost."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from rich.table import Table

from runfold_stack.endpoints import require_database
from runfold_stack.options.values import name, period
from runfold_stack.terminal.formats import dollars, duration, number, percent, tokens
from runfold_stack.terminal.output import Output, cell, make_table, shown_name
from runfold_storage.history import History
from runfold_storage.queries.stats.aggregate import GroupFigures, StatsSummary
from runfold_storage.queries.stats.report import Stats

from . import Context

_MAX_ERRORS: Final = 10

EPILOG = """\
examples:
  runfold stats                              every workflow
  runfold stats nightly-report --since 7d    one workflow, with its nodes
  runfold stats --json --bucket day --tz Europe/Berlin --since 30d

Times are RFC 3339 (2026-11-21T02:00:00Z), a date, or an age: 90s 15m 24h 7d 2w; they are
extended to whole hours. A run counts in the hour of its first event.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("workflow", nargs="?", type=name, help="only this workflow, with its nodes")
    parser.add_argument("--project", type=name, help="only runs of this project")
    parser.add_argument("--since", metavar="TIME", help="only runs that began at or after TIME")
    parser.add_argument("--until", metavar="TIME", help="only runs that began before TIME")
    parser.add_argument("--bucket", help="also by hour, day, week, month, or minute (up to 6 h)")
    parser.add_argument(
        "--tz", metavar="ZONE", help="time zone of buckets (UTC), as in Europe/Berlin"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Print the statistics by workflow, or those of one workflow by node."""
    now = datetime.now(UTC)
    since, until = period(arguments, now)
    filters: dict[str, Any] = {
        "project": arguments.project,
        "workflow": arguments.workflow,
        "since": since,
        "until": until,
    }
    by_name = arguments.workflow is None
    with History(require_database(context.settings), pool_size=1) as history:
        stats = history.stats(
            **filters,
            bucket=arguments.bucket,
            tz=arguments.tz,
            group_by="workflow" if by_name else None,
        )
        nodes = [] if by_name else _groups(history.stats(**filters, group_by="node"))
        errors = _groups(history.stats(**filters, group_by="error_type"))
    if context.output.is_json:
        document = msgspec.to_builtins(stats, builtin_types=(datetime,))
        document["errors"] = [{"type": one.error_type, "count": one.failed} for one in errors]
        context.output.json(document if by_name else {**document, "nodes": nodes})
        return 0
    _print(stats, nodes, errors, arguments.workflow, context.output)
    return 0


def _print(
    stats: Stats,
    nodes: list[GroupFigures],
    errors: list[GroupFigures],
    workflow: str | None,
    output: Output,
) -> None:
    if not stats.total:
        output.note("no runs in that time; `runfold runs` lists all runs")
        return
    rows: list[tuple[str, StatsSummary]] = [
        (shown_name(group.workflow or None), group) for group in _groups(stats)
    ]
    if workflow is not None:
        rows = [(workflow, stats)]
    elif len(rows) > 1:
        rows.append(("all", stats))
    output.table(_table("WORKFLOW", rows))
    sections: list[tuple[str, list[tuple[str, StatsSummary]]]] = [
        ("NODE", [(str(group.node), group) for group in nodes]),
        ("FROM", [(f"{bucket.start:%Y-%m-%d %H:%MZ}", bucket) for bucket in stats.buckets or ()]),
    ]
    for title, section in sections:
        if section:
            output.line()
            output.table(_table(title, section))
    if errors:
        output.line()
        table = make_table("ERROR", "FAILED", right=("FAILED",))
        for one in errors[:_MAX_ERRORS]:
            table.add_row(cell(str(one.error_type or "none given")), number(one.failed))
        output.table(table)


def _table(first: str, rows: Sequence[tuple[str, StatsSummary]]) -> Table:
    """Return a table with one row each; omit tokens and cost if all are zero."""
    cells = [{first: cell(name), **_cells(figures)} for name, figures in rows]
    columns = [
        column
        for column in cells[0]
        if column not in ("TOKENS", "COST") or any(row[column] for row in cells)
    ]
    table = make_table(*columns, right=tuple(columns[1:]))
    for row in cells:
        table.add_row(*(row[column] for column in columns))
    return table


def _cells(figures: StatsSummary) -> dict[str, str]:
    took = figures.duration_ms
    return {
        "TOTAL": number(figures.total),
        "COMPLETED": number(figures.completed),
        "FAILED": number(figures.failed),
        "CANCELLED": number(figures.cancelled),
        "RUNNING": number(figures.running),
        "SUCCESS": percent(figures.success_rate),
        "P50": duration(took.p50),
        "P95": duration(took.p95),
        "MAX": duration(took.max),
        "TOKENS": tokens(figures.usage),
        "COST": dollars(figures.usage.cost_usd),
    }


def _groups(stats: Stats) -> list[GroupFigures]:
    groups: Iterable[GroupFigures] | msgspec.UnsetType = stats.groups
    return [] if isinstance(groups, msgspec.UnsetType) else list(groups)

"""`runfold stats` and `failures`: counts, durations, cost, and the most frequent failures."""

from argparse import Namespace
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import msgspec

from runfold_stack.endpoints import open_history
from runfold_stack.options import JSON, PERIOD, WORKFLOW, limit, name, option, period
from runfold_stack.terminal.formats import dollars, duration, moment, number, percent, tokens
from runfold_stack.terminal.output import Output, cell, error_line, say, shown_name
from runfold_stack.terminal.tables import Table
from runfold_storage.parameters import MAX_LIMIT
from runfold_storage.queries.stats.aggregate import GroupFigures, StatsSummary
from runfold_storage.queries.stats.failures import Failures
from runfold_storage.queries.stats.report import Stats

from . import Context, command

_MAX_ERRORS: Final = 10


@command(
    option("workflow", nargs="?", type=name, help="only this workflow, with its nodes"),
    *PERIOD,
    option("--bucket", help="also by hour, day, week, month, or minute (up to 6 h)"),
    option("--tz", metavar="ZONE", help="time zone of buckets (UTC), as in Europe/Berlin"),
    JSON,
)
def stats(arguments: Namespace, context: Context) -> None:
    """examples:
      runfold stats                              every workflow
      runfold stats nightly-report --since 7d    one workflow, with its nodes
      runfold stats --json --bucket day --tz Europe/Berlin --since 30d

    A run counts in the hour of its first event; times are extended to whole hours.
    """
    workflow = arguments.workflow
    filters: dict[str, Any] = {"project": arguments.project, "workflow": workflow}
    filters["since"], filters["until"] = period(arguments)
    by_name = None if workflow else "workflow"
    with open_history(context.settings) as history:
        found = history.stats(**filters, bucket=arguments.bucket, tz=arguments.tz, group_by=by_name)
        nodes = _groups(history.stats(**filters, group_by="node")) if workflow else []
        errors = _groups(history.stats(**filters, group_by="error_type"))
    if context.output.is_json:
        document = msgspec.to_builtins(found, builtin_types=(datetime,))
        document["errors"] = [{"type": one.error_type, "count": one.failed} for one in errors]
        context.output.json({**document, "nodes": nodes} if workflow else document)
    elif not found.total:
        say("no runs in that time; `runfold runs` lists all runs")
    else:
        _print_stats(found, nodes, errors, workflow, context.output)


def _print_stats(
    found: Stats,
    nodes: list[GroupFigures],
    errors: list[GroupFigures],
    workflow: str | None,
    output: Output,
) -> None:
    rows: list[tuple[str, StatsSummary]]
    rows = [(shown_name(group.workflow or None), group) for group in _groups(found)]
    if workflow is not None or len(rows) > 1:
        rows.append(("all" if workflow is None else cell(workflow), found))
    by_error = Table("ERROR", "FAILED", right=("FAILED",))
    for one in errors[:_MAX_ERRORS]:
        by_error.add_row(cell(str(one.error_type or "none given")), number(one.failed))
    tables = (
        _table("WORKFLOW", rows),
        _table("NODE", ((cell(str(group.node)), group) for group in nodes)),
        _table("FROM", ((f"{b.start:%Y-%m-%d %H:%MZ}", b) for b in found.buckets or ())),
        by_error,
    )
    for position, table in enumerate(table for table in tables if table.rows):
        if position:
            output.line()
        output.table(table)


def _table(first: str, rows: Iterable[tuple[str, StatsSummary]]) -> Table:
    counts = ("TOTAL", "COMPLETED", "FAILED", "CANCELLED", "RUNNING")
    figures = (*counts, "SUCCESS", "P50", "P95", "MAX", "TOKENS", "COST")
    table = Table(first, *figures, right=figures)
    for title, summary in rows:
        took = summary.duration_ms
        table.add_row(
            title,
            *(number(getattr(summary, column.lower())) for column in counts),
            percent(summary.success_rate),
            *map(duration, (took.p50, took.p95, took.max)),
            tokens(summary.usage),
            dollars(summary.usage.cost_usd),
        )
    return table


def _groups(found: Stats) -> list[GroupFigures]:
    return [] if isinstance(found.groups, msgspec.UnsetType) else list(found.groups)


@command(*PERIOD, WORKFLOW, limit("groups", 20, MAX_LIMIT), JSON)
def failures(arguments: Namespace, context: Context) -> None:
    """examples:
      runfold failures --since 24h
      runfold failures --workflow nightly-report --json | jq '.failures[0].example_run'
      runfold runs --fingerprint 2c1743a391305fbf

    Failures of a group have the same error type, node and message, apart from numbers, ids, paths,
    addresses and quoted texts in the message.
    """
    since, until = period(arguments)
    with open_history(context.settings) as history:
        scope = {"project": arguments.project, "workflow": arguments.workflow}
        found = history.failures(**scope, since=since, until=until, limit=arguments.limit)
    context.output.result(found, lambda: _print_failures(found, context.output))


def _print_failures(found: Failures, output: Output) -> None:
    counts = ("RUNS", "ATTEMPTS")
    table = Table("GROUP", *counts, "LAST", "NODE", "ERROR", "EXAMPLE", right=counts)
    for group in found.failures:
        table.add_row(
            cell(group.fingerprint),
            number(group.runs),
            number(group.node_attempts),
            moment(group.last_seen_at),
            cell(group.node or ""),
            error_line(group.error_type, group.message),
            cell(group.example_run),
        )
    output.table(table)
    if not found.failures:
        say("no failures in that time")
    elif found.relation == "at_least":
        say("there are too many failures to count: only the newest were counted")

"""`runfold failures`: group failures that are alike, the most frequent first."""

from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime

from runfold_stack.endpoints import require_database
from runfold_stack.options.values import name, period, whole_number
from runfold_stack.terminal.formats import moment, number
from runfold_stack.terminal.output import Output, cell, make_table
from runfold_storage.history import History
from runfold_storage.parameters import MAX_LIMIT
from runfold_storage.queries.stats.failures import Failures

from . import Context

EPILOG = """\
examples:
  runfold failures --since 24h
  runfold failures --workflow nightly-report --json | jq '.failures[0].example_run'
  runfold runs --fingerprint 2c1743a391305fbf

Failures of a group have the same error type, node and message, apart from numbers, ids, paths,
addresses and quoted texts in the message. Times are RFC 3339, a date, or an age: 24h 7d.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--project", type=name, help="only runs of this project")
    parser.add_argument("--workflow", type=name, help="only runs of this workflow")
    parser.add_argument("--since", metavar="TIME", help="only failures at or after TIME")
    parser.add_argument("--until", metavar="TIME", help="only failures before TIME")
    parser.add_argument(
        "--limit", type=whole_number(1, MAX_LIMIT), default=20, help="maximum number of groups (20)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Read the groups and print them."""
    since, until = period(arguments, datetime.now(UTC))
    with History(require_database(context.settings), pool_size=1) as history:
        found = history.failures(
            project=arguments.project,
            workflow=arguments.workflow,
            since=since,
            until=until,
            limit=arguments.limit,
        )
    if context.output.is_json:
        context.output.json(found)
    else:
        _print(found, context.output)
    return 0


def _print(found: Failures, output: Output) -> None:
    if not found.failures:
        output.note("no failures in that time")
        return
    counts = ("RUNS", "ATTEMPTS")
    table = make_table("GROUP", *counts, "LAST", "NODE", "ERROR", "EXAMPLE", right=counts)
    for group in found.failures:
        message = (group.message or "").partition("\n")[0]
        table.add_row(
            cell(group.fingerprint),
            number(group.runs),
            number(group.node_attempts),
            moment(group.last_seen_at),
            cell(group.node or ""),
            cell(": ".join(part for part in (group.error_type, message) if part)),
            cell(group.example_run),
        )
    output.table(table)
    if found.relation == "at_least":
        output.note("there are too many failures to count: only the newest were counted")

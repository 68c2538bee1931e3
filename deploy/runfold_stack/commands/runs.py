"""`runfold runs`: what ran lately, and how it went."""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from datetime import UTC, datetime

from runfold_stack.commands import Context
from runfold_stack.formats import number
from runfold_stack.options import name, period, whole_number
from runfold_stack.output import Output
from runfold_stack.run_rows import runs_table
from runfold_stack.servers import require_database
from runfold_storage.filters import MAX_LIMIT
from runfold_storage.history import History
from runfold_storage.summaries import RunPage

_EPILOG = """\
examples:
  runfold runs --status failed --status lost --since 24h
  runfold runs --project acme --workflow nightly-report --limit 10
  runfold runs --json | jq -r '.runs[].id'

Times are RFC 3339 (2026-11-21T02:00:00Z), a date, or how long ago: 90s 15m 24h 7d 2w.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("--project", type=name, help="only runs of this project")
    parser.add_argument("--workflow", type=name, help="only runs of this workflow")
    parser.add_argument(
        "--status", action="append", help="only runs with this status; may be given repeatedly"
    )
    parser.add_argument("--since", metavar="TIME", help="only runs that started then or later")
    parser.add_argument("--until", metavar="TIME", help="only runs that started before")
    parser.add_argument(
        "--limit",
        type=whole_number(1, MAX_LIMIT),
        default=50,
        help=f"at most so many (50; up to {MAX_LIMIT})",
    )
    parser.add_argument("--cursor", help="go on after the page that named this cursor")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Read one page and print it."""
    now = datetime.now(UTC)
    since, until = period(arguments, now)
    with History(require_database(context.settings), pool_size=1) as history:
        page = history.runs(
            project=arguments.project,
            workflow=arguments.workflow,
            status=arguments.status,
            started_after=since,
            started_before=until,
            limit=arguments.limit,
            cursor=arguments.cursor,
        )
    if context.output.is_json:
        context.output.json(page)
    else:
        filters = (arguments.project, arguments.workflow, arguments.status, since, until)
        _print(page, context.output, is_filtered=any(each is not None for each in filters))
    return 0


def _print(page: RunPage, output: Output, *, is_filtered: bool) -> None:
    table = runs_table(page.runs, datetime.now(UTC))
    output.table(table)
    if not page.runs:
        output.note(
            "no runs like that; without filters `runfold runs` lists all"
            if is_filtered
            else "no runs; record one with `runfold exec -- COMMAND`"
        )
        return
    total = {"exact": "", "at_least": "at least ", "estimate": "about "}[page.total.relation]
    if page.next_cursor is not None:
        output.note(
            f"{len(page.runs)} of {total}{number(page.total.value)} runs; "
            f"more with: --cursor {page.next_cursor}"
        )

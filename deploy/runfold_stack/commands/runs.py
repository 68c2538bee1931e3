"""`runfold runs`: list runs, newest first."""

import time
from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from runfold_stack.endpoints import require_database
from runfold_stack.options.run_filters import add_filters, filters_of
from runfold_stack.options.values import whole_number
from runfold_stack.terminal.formats import number
from runfold_stack.terminal.output import Output
from runfold_stack.terminal.run_table import runs_table
from runfold_storage.history import History
from runfold_storage.parameters import MAX_LIMIT
from runfold_storage.read_models.summaries import RunPage

from . import Context

_TIMEOUT_S: Final = 10

EPILOG = """\
examples:
  runfold runs --status failed --status lost --since 24h
  runfold runs --project acme --workflow nightly-report --limit 10
  runfold runs --tag env=prod --user ann --min-duration 5m --min-cost 0.50
  runfold runs --json | jq -r '.runs[].id'

Times are RFC 3339 (2026-11-21T02:00:00Z), a date, or an age: 90s 15m 24h 7d 2w.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_filters(parser)
    parser.add_argument(
        "--limit",
        type=whole_number(1, MAX_LIMIT),
        default=50,
        help=f"maximum number of runs (50; up to {MAX_LIMIT})",
    )
    parser.add_argument("--cursor", help="continue after the page that printed this cursor")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Print one page."""
    filters = filters_of(arguments, datetime.now(UTC))
    with History(require_database(context.settings), pool_size=1) as history:
        page = _read(history, filters, arguments.limit, arguments.cursor)
    if context.output.is_json:
        context.output.json(page)
    else:
        _print(page, context.output, is_filtered=bool(filters))
    return 0


def _read(history: History, filters: dict[str, Any], limit: int, cursor: str | None) -> RunPage:
    """Read a page; if the scan for matches was cut short, continue it for some seconds."""
    deadline = time.monotonic() + _TIMEOUT_S
    page = history.runs(**filters, limit=limit, cursor=cursor)
    while len(page.runs) < limit and page.next_cursor and time.monotonic() < deadline:
        more = history.runs(**filters, limit=limit - len(page.runs), cursor=page.next_cursor)
        page = msgspec.structs.replace(
            page, runs=page.runs + more.runs, next_cursor=more.next_cursor
        )
    return page


def _print(page: RunPage, output: Output, *, is_filtered: bool) -> None:
    table = runs_table(page.runs, datetime.now(UTC))
    output.table(table)
    if not page.runs:
        output.note(
            f"no matches among the newest runs; search older ones: --cursor {page.next_cursor}"
            if page.next_cursor
            else "no runs match these filters; without filters `runfold runs` lists all"
            if is_filtered
            else "no runs; record one with `runfold exec -- COMMAND`"
        )
        return
    total = {"exact": "", "estimate": "about "}[page.total.relation]
    if page.next_cursor is not None:
        output.note(
            f"{len(page.runs)} of {total}{number(page.total.value)} runs; "
            f"continue with: --cursor {page.next_cursor}"
        )

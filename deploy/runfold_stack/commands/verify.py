"""`runfold verify`: compare projections and statistics with the ledger."""

import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

import psycopg

from runfold_stack.endpoints import require_database
from runfold_stack.exit_codes import FAILED, OK
from runfold_stack.options.selection import TIMES, add_selection, read_selection
from runfold_stack.processes.signals import run_stoppable
from runfold_stack.terminal.difference_list import Listing, print_findings
from runfold_stack.terminal.progress import progress_bar
from runfold_storage.migrate import check_schema
from runfold_storage.postgres.connections import connect
from runfold_workers.integrity.repair import Findings, examine
from runfold_workers.integrity.selection import estimate_runs

from . import Context

Correct = Callable[[psycopg.Connection, Findings, threading.Event], int]

EPILOG = f"""\
examples:
  runfold verify                    everything; lists the differences
  runfold verify --project acme --json
  runfold verify --run RUN

Folds runs again from the ledger and compares the result with the tables, including statistics. It
writes nothing and takes no locks. The exit code is 1 if anything differs; `runfold repair` corrects
the differences.

{TIMES}
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_selection(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Compare; exit code 1 if anything differs."""
    findings = compare(arguments, context)
    if findings.differences and not context.output.is_json:
        context.output.note("`runfold repair` with the same filters corrects them")
    return FAILED if findings.differences else OK


def compare(arguments: Namespace, context: Context, correct: Correct | None = None) -> Findings:
    """Print each difference as it is found; then, with `correct`, correct all of them."""
    url = require_database(context.settings)
    check_schema(url)
    listing = Listing(context.output)
    with connect(url, autocommit=True) as connection:
        selection = read_selection(arguments, connection)
        with progress_bar("comparing", estimate_runs(connection, selection)) as show:

            def work(stop: threading.Event) -> tuple[Findings, int | None]:
                findings = examine(
                    connection,
                    selection,
                    listing.add,
                    lambda findings: show(findings.looked_at, findings.doing),
                    stop,
                )
                if correct is None:
                    return findings, None
                show(findings.looked_at, "repairing")
                return findings, correct(connection, findings, stop)

            findings, repaired = run_stoppable(
                work, "interrupted" if correct is None else "interrupted; corrections so far remain"
            )
    print_findings(context.output, findings, listing, repaired=repaired)
    return findings

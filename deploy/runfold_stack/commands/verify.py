"""`runfold verify`: whether projections and statistics say what the ledger says."""

import threading
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter

from runfold_stack.endpoints import require_database
from runfold_stack.exit_codes import FAILED, INTERRUPTED, OK
from runfold_stack.options.selection import TIMES, add_selection, progress_bar, read_selection
from runfold_stack.processes.signals import run_stoppable
from runfold_stack.terminal.difference_list import Listing, print_findings
from runfold_storage.jobs import JobInterrupted
from runfold_storage.migrate import check_schema
from runfold_storage.postgres.connections import connect
from runfold_workers.integrity.repair import Findings, examine
from runfold_workers.integrity.selection import estimate_runs

from . import Context

_EPILOG = f"""\
examples:
  runfold verify                    everything; names what differs
  runfold verify --project acme --json
  runfold verify --run RUN

Refolds runs from the ledger and compares them with the tables, statistics too. Writes nothing and
holds nothing up. The exit code is 1 if anything differs; `runfold repair` mends it.

{TIMES}
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add_selection(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Compare, and tell each difference as it is found."""
    url = require_database(context.settings)
    check_schema(url)
    listing = Listing(context.output)
    with connect(url, autocommit=True) as connection:
        selection = read_selection(arguments, connection)
        with progress_bar("comparing", estimate_runs(connection, selection)) as seen:

            def work(stop: threading.Event) -> Findings:
                return examine(
                    connection,
                    selection,
                    listing.add,
                    lambda findings: seen(findings.looked_at, findings.doing),
                    stop,
                )

            try:
                findings = run_stoppable(work)
            except JobInterrupted:
                context.output.note("interrupted")
                return INTERRUPTED
    print_findings(context.output, findings, listing)
    if findings.differences and not context.output.is_json:
        context.output.note("`runfold repair` with the same filters mends it")
    return FAILED if findings.differences else OK

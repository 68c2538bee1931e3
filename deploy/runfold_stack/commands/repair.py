"""`runfold repair`: puts right what `verify` finds, and touches nothing else."""

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
from runfold_workers.integrity.repair import Findings, examine, repair
from runfold_workers.integrity.selection import estimate_runs

from . import Context

_EPILOG = f"""\
examples:
  runfold repair                    whatever `runfold verify` finds
  runfold repair --run RUN

Ingest and reads go on. What has become right by itself in the meantime is left alone. For tables
that are wrong as a whole, `runfold rebuild` does the same and goes on where it was interrupted. The
exit code is 1 if the ledger has events that cannot be read.

{TIMES}
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add_selection(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Find, tell, mend."""
    url = require_database(context.settings)
    check_schema(url)
    output = context.output
    listing = Listing(output)
    with connect(url, autocommit=True) as connection:
        selection = read_selection(arguments, connection)
        with progress_bar("comparing", estimate_runs(connection, selection)) as seen:

            def work(stop: threading.Event) -> tuple[Findings, int]:
                findings = examine(
                    connection,
                    selection,
                    listing.add,
                    lambda findings: seen(findings.looked_at, findings.doing),
                    stop,
                )
                seen(findings.looked_at, "mending")
                return findings, repair(connection, findings, stop)

            try:
                findings, repaired = run_stoppable(work)
            except JobInterrupted:
                output.note("interrupted: what was mended until now stays so")
                return INTERRUPTED
    print_findings(output, findings, listing, repaired=repaired)
    return FAILED if any(not run.is_mendable for run in findings.runs) else OK

"""`runfold rebuild`: the projections and statistics anew from the ledger, while all goes on."""

import threading
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from uuid import UUID

import msgspec

from runfold_stack.endpoints import require_database
from runfold_stack.exit_codes import FAILED, INTERRUPTED, OK
from runfold_stack.options.selection import TIMES, Seen, add_selection, progress_bar, read_selection
from runfold_stack.processes.signals import run_stoppable
from runfold_stack.terminal.output import Output
from runfold_storage.jobs import JobInterrupted, add_job, find_unfinished
from runfold_storage.migrate import check_schema
from runfold_storage.postgres.connections import connect
from runfold_workers.integrity.rebuild import KIND, Progress, rebuild
from runfold_workers.integrity.selection import estimate_runs

from . import Context

_EPILOG = f"""\
examples:
  runfold rebuild                               everything
  runfold rebuild --project acme --since 7d     what began within the last week
  runfold rebuild --run RUN

Ingest and reads go on. What is right already is not written, and no worker notices. Interrupted or
killed, the same command goes on where it was; `--afresh` begins anew. The exit code is 1 if the
ledger has events that cannot be read.

{TIMES}
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add_selection(parser)
    parser.add_argument("--afresh", action="store_true", help="do not go on where one was left")
    parser.add_argument(
        "--background", action="store_true", help="let a worker do it: `runfold jobs` shows it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Do the job, or the rest of it."""
    output, url = context.output, require_database(context.settings)
    check_schema(url)
    with connect(url, autocommit=True) as connection:
        selection = read_selection(arguments, connection)
        if arguments.background:
            job_id = add_job(connection, KIND, selection.as_arguments(), background=True)
            return _tell_job(job_id, output)
        job = (
            None
            if arguments.afresh
            else find_unfinished(connection, KIND, selection.as_arguments())
        )
        if job is not None and job.progress is not None:
            before = msgspec.convert(job.progress, Progress)
            output.note(f"going on with job {job.id}, after {before.looked_at:,} runs")
        job_id = job.id if job else add_job(connection, KIND, selection.as_arguments())
        total = estimate_runs(connection, selection)
        with progress_bar("refolding", total) as seen:

            def work(stop: threading.Event) -> Progress:
                return rebuild(connection, job_id, stop, lambda progress: _tell(progress, seen))

            try:
                progress = run_stoppable(work)
            except JobInterrupted:
                output.note("interrupted; the same command goes on from here")
                return INTERRUPTED
    _print(progress, output)
    return FAILED if progress.unreadable else OK


def _tell_job(job_id: UUID, output: Output) -> int:
    if output.is_json:
        output.json({"job": str(job_id)})
    else:
        output.line(f"job {job_id}: `runfold jobs {job_id}` shows how far it is")
    return OK


def _tell(progress: Progress, seen: Seen) -> None:
    seen(progress.looked_at, "refolding" if progress.phase == "runs" else "statistics")


def _print(progress: Progress, output: Output) -> None:
    if output.is_json:
        output.json(
            {
                "looked_at": progress.looked_at,
                "runs": progress.runs,
                "rollups": progress.rollups,
                "unreadable": progress.unreadable,
            }
        )
        return
    output.line(
        f"refolded {progress.looked_at:,} runs: {progress.runs:,} of them and"
        f" {progress.rollups:,} statistics beside theirs were put right"
    )
    if progress.unreadable:
        output.note(
            f"{progress.unreadable:,} runs were left as they are, for the ledger has events of"
            " them that cannot be read: `runfold verify` names them"
        )

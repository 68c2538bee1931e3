"""`runfold rebuild`: fold projections and statistics again from the ledger, during operation."""

import threading
from argparse import ArgumentParser, Namespace

import msgspec

from runfold_stack.endpoints import require_database
from runfold_stack.exit_codes import FAILED, OK
from runfold_stack.options.selection import TIMES, add_selection, read_selection
from runfold_stack.processes.signals import run_stoppable
from runfold_stack.terminal.progress import ShowProgress, progress_bar
from runfold_storage.jobs import add_job, find_unfinished
from runfold_storage.migrate import check_schema
from runfold_storage.postgres.connections import connect
from runfold_workers.integrity.rebuild import KIND, Progress, rebuild
from runfold_workers.integrity.selection import estimate_runs

from . import Context

EPILOG = f"""\
examples:
  runfold rebuild                               everything
  runfold rebuild --project acme --since 7d     runs that began within the last week
  runfold rebuild --run RUN

Ingest and reads continue. Rows that are correct are not written again, and workers keep their
shards. After an interruption or a kill the same command resumes where it was; `--afresh` starts
over. The exit code is 1 if the ledger has events that cannot be read.

{TIMES}
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_selection(parser)
    parser.add_argument("--afresh", action="store_true", help="do not resume an unfinished rebuild")
    parser.add_argument(
        "--background", action="store_true", help="let a worker do it; `runfold jobs` shows it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Rebuild, or resume an unfinished rebuild of the same selection."""
    output, url = context.output, require_database(context.settings)
    check_schema(url)
    with connect(url, autocommit=True) as connection:
        selection = read_selection(arguments, connection)
        requested = selection.as_arguments()
        if arguments.background:
            job_id = add_job(connection, KIND, requested, background=True)
            output.result(
                {"job": str(job_id)}, f"job {job_id}: `runfold jobs {job_id}` shows its progress"
            )
            return OK
        job = None if arguments.afresh else find_unfinished(connection, KIND, requested)
        if job is not None and job.progress is not None:
            before = msgspec.convert(job.progress, Progress)
            output.note(f"resuming job {job.id}, after {before.looked_at:,} runs")
        job_id = job.id if job else add_job(connection, KIND, requested)
        with progress_bar("refolding", estimate_runs(connection, selection)) as show:

            def work(stop: threading.Event) -> Progress:
                return rebuild(connection, job_id, stop, lambda progress: _show(progress, show))

            progress = run_stoppable(work)
    output.result(
        {
            "looked_at": progress.looked_at,
            "runs": progress.runs,
            "rollups": progress.rollups,
            "unreadable": progress.unreadable,
        },
        f"refolded {progress.looked_at:,} runs; corrected {progress.runs:,} of them and"
        f" {progress.rollups:,} further statistics",
    )
    if progress.unreadable and not output.is_json:
        output.note(
            f"left {progress.unreadable:,} runs unchanged because the ledger has events of them"
            " that cannot be read: `runfold verify` lists these runs"
        )
    return FAILED if progress.unreadable else OK


def _show(progress: Progress, show: ShowProgress) -> None:
    show(progress.looked_at, "refolding" if progress.phase == "runs" else "statistics")

"""`runfold restore`: write archived data back into a database."""

import threading
from argparse import ArgumentParser, Namespace
from typing import Final

from runfold_stack.endpoints import require_database
from runfold_stack.exit_codes import OK, USAGE, CommandFailed
from runfold_stack.processes.signals import run_stoppable
from runfold_stack.terminal.progress import progress_bar
from runfold_storage.jobs import add_job, find_unfinished
from runfold_storage.migrate import check_schema
from runfold_storage.postgres.connections import connect
from runfold_storage.queries.run.reader import open_archive

from . import Context

KIND: Final = "restore"

EPILOG = """\
examples:
  runfold migrate && runfold restore --from /var/lib/runfold-archive
  runfold restore --from s3://bucket/runfold --ledger postgresql://replica/runfold

Restores the history into an empty database after the old one was lost: events, runs, nodes and
statistics as they were before retention expired them. Deleted runs stay deleted. --ledger adds the
newer events from a database whose table `events` can still be read: the old one, a replica, or a
restored dump. Workers may run meanwhile. After an interruption or a kill the same command resumes;
a second restore changes nothing.

An archive with another number of shards is refused, and so is a database in which retention has
expired runs, because their statistics still count there: `runfold show` opens archived runs without
restoring them. After the restore, set the retention policies again, and choose another folder for
the archive: the old one already contains what the restored database would archive.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--from", dest="archive", metavar="ARCHIVE", help="folder or URL (RUNFOLD_ARCHIVE)"
    )
    parser.add_argument("--ledger", metavar="URL", help="add events of this database's ledger")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Restore, or resume an unfinished restore from the same archive."""
    settings, output = context.settings, context.output
    archive_url = arguments.archive or settings.archive_url
    if not archive_url:
        raise CommandFailed("no archive is named: give --from ARCHIVE or RUNFOLD_ARCHIVE", USAGE)
    url = require_database(settings)
    check_schema(url)
    archive = open_archive(archive_url)
    # Imported after `open_archive`, which explains how to install pyarrow if it is missing.
    from runfold_storage.archive.layout import KINDS
    from runfold_storage.archive.store import files_of
    from runfold_workers.retention.restore import Progress, check, restore

    with connect(url, autocommit=True) as connection:
        check(connection, archive)
        requested = {"archive": archive.shown}
        job = find_unfinished(connection, KIND, requested)
        if job is not None and job.progress is not None:
            output.note(f"resuming job {job.id}")
        job_id = job.id if job is not None else add_job(connection, KIND, requested)
        files = sum(len(files_of(archive, kind)) for kind in KINDS)
        with progress_bar("restoring", files, "files") as show:

            def show_progress(progress: Progress) -> None:
                show(progress.files, (progress.kinds or ["done"])[0])

            def work(stop: threading.Event) -> Progress:
                if arguments.ledger is None:
                    return restore(connection, job_id, stop, archive, show_progress)
                with connect(arguments.ledger, autocommit=True) as ledger:
                    return restore(connection, job_id, stop, archive, show_progress, ledger=ledger)

            progress = run_stoppable(work)
    output.result(
        {"events": progress.events, "runs": progress.runs, "rollups": progress.rollups},
        f"restored {progress.events:,} events, {progress.runs:,} runs and {progress.rollups:,}"
        " statistics of runs whose rows have expired",
    )
    if not output.is_json:
        output.note("`runfold verify` compares runs and statistics with the ledger")
    return OK

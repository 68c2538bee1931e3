"""`runfold restore`: what the archive has, back into a database."""

import threading
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from typing import Final

from runfold_stack.endpoints import require_database
from runfold_stack.exit_codes import INTERRUPTED, OK, USAGE, CommandFailed
from runfold_stack.options.selection import progress_bar
from runfold_stack.processes.signals import run_stoppable
from runfold_stack.terminal.output import Output
from runfold_storage.jobs import JobInterrupted, add_job, find_unfinished
from runfold_storage.migrate import check_schema
from runfold_storage.postgres.connections import connect
from runfold_storage.queries.run.reader import open_archive

from . import Context

KIND: Final = "restore"

_EPILOG = """\
examples:
  runfold migrate && runfold restore --from /var/lib/runfold-archive
  runfold restore --from s3://bucket/runfold --ledger postgresql://replica/runfold

For an empty database, after the old one was lost: events, runs, nodes and statistics come back as
they were before retention took them away; what was deleted stays deleted. --ledger brings along
what is younger, from a database of which the table `events` can be read: the old one, a replica of
it, or what was restored from a dump. Workers may be at work. Interrupted or killed, the same
command goes on; done twice it changes nothing.

It refuses an archive of another number of shards, and a database from which retention has taken
runs away, for their figures still count there: `runfold show` opens those without restoring them.
Afterwards set the retention anew, and give it another folder than this archive: what it takes away
from the restored database would be in there twice.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "--from", dest="archive", metavar="ARCHIVE", help="folder or address (RUNFOLD_ARCHIVE)"
    )
    parser.add_argument(
        "--ledger", metavar="URL", help="database whose ledger can still be read: bring it along"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Do the job, or the rest of it."""
    settings, output = context.settings, context.output
    place = arguments.archive or settings.archive_url
    if not place:
        raise CommandFailed("say from where: --from ARCHIVE, or RUNFOLD_ARCHIVE", USAGE)
    url = require_database(settings)
    check_schema(url)
    archive = open_archive(place)
    # Only now: it needs pyarrow, and says so if it is missing.
    from runfold_storage.archive.layout import KINDS
    from runfold_storage.archive.store import files_of
    from runfold_workers.retention.restore import Progress, check, restore

    with connect(url, autocommit=True) as connection:
        check(connection, archive)
        told = {"archive": archive.shown}
        job = find_unfinished(connection, KIND, told)
        if job is not None and job.progress is not None:
            output.note(f"going on with job {job.id}")
        job_id = job.id if job is not None else add_job(connection, KIND, told)
        files = sum(len(files_of(archive, kind)) for kind in KINDS)
        with progress_bar("restoring", files, "files") as seen:

            def tell(progress: Progress) -> None:
                seen(progress.files, (progress.kinds or ["done"])[0])

            def work(stop: threading.Event) -> Progress:
                if arguments.ledger is None:
                    return restore(connection, job_id, stop, archive, tell)
                with connect(arguments.ledger, autocommit=True) as ledger:
                    return restore(connection, job_id, stop, archive, tell, ledger=ledger)

            try:
                progress = run_stoppable(work)
            except JobInterrupted:
                output.note("interrupted; the same command goes on from here")
                return INTERRUPTED
    return _tell(output, progress.events, progress.runs, progress.rollups)


def _tell(output: Output, events: int, runs: int, rollups: int) -> int:
    if output.is_json:
        output.json({"events": events, "runs": runs, "rollups": rollups})
        return OK
    output.line(
        f"restored {events:,} events, {runs:,} runs, {rollups:,} statistics of runs that are lost"
    )
    output.note("`runfold verify` compares runs and statistics with the ledger")
    return OK

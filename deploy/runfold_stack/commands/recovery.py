"""`runfold migrate`, `rebuild`, `verify`, `repair`, `restore`: the schema and the projections."""

import threading
from argparse import Namespace
from collections.abc import Callable
from typing import Any, Final

import msgspec
import psycopg

from runfold_stack.endpoints import open_database, require_database
from runfold_stack.errors import FAILED, OK, USAGE, CommandFailed
from runfold_stack.options import JSON, PERIOD, WORKFLOW, one_of, option, period
from runfold_stack.processes.signals import run_stoppable
from runfold_stack.terminal.output import plain, progress_bar, say
from runfold_storage.checkpoints.positions import count_shards
from runfold_storage.jobs import add_job, find_unfinished
from runfold_storage.migrate import check_schema, current_revision, head, is_known
from runfold_storage.migrate import migrate as migrate_schema
from runfold_storage.postgres.connections import connect
from runfold_storage.queries.run.reader import open_archive
from runfold_workers.integrity import rebuild as rebuilding
from runfold_workers.integrity.diff import Mismatch
from runfold_workers.integrity.repair import Findings, examine
from runfold_workers.integrity.repair import repair as correct_findings
from runfold_workers.integrity.selection import Selection, estimate_runs

from . import Context, command

_MAX_LISTED: Final = 1000
"""Further differences are only counted."""
_SELECTION: Final = (option("--run", metavar="RUN", help="only this run"), *PERIOD, WORKFLOW)

Correct = Callable[[psycopg.Connection, Findings, threading.Event], int]


@command(
    one_of(
        option("--to", metavar="REV", default="head", help="target revision (default: head)"),
        option("--check", action="store_true", help="change nothing, only check"),
    ),
    option("--yes", action="store_true", help="accept the loss of data in a downgrade"),
    JSON,
)
def migrate(arguments: Namespace, context: Context) -> None:
    """examples:
      runfold migrate                     to the newest schema; does nothing if it is up to date
      runfold migrate --check             exit code 1 if a migration is needed
      runfold migrate --to base --yes     drop all of Runfold's tables

    `runfold up` migrates by itself. Concurrent migrations wait for each other.
    """
    url = require_database(context.settings)
    before, wanted = current_revision(url), arguments.to
    if arguments.check:
        check_schema(url)
        after = before
    elif not is_known(wanted):
        message = f"--to {wanted}: there is no such revision; the newest is {head()}"
        raise CommandFailed(message, USAGE)
    elif wanted != "head" and before is not None and not arguments.yes:
        raise CommandFailed(
            f"the database is at {before}; migrating to {wanted} may drop tables with "
            "their data: confirm with --yes",
            USAGE,
        )
    else:
        after = migrate_schema(url, wanted)
    text = f"migrated the schema from {before or 'empty'} to {after or 'empty'}"
    if before == after:
        text = f"the schema is at {after}, up to date"
    context.output.result({"before": before, "after": after, "head": head()}, text)


def _select(arguments: Namespace, connection: psycopg.Connection) -> Selection:
    since, until = period(arguments)
    filters = {"project": arguments.project, "workflow": arguments.workflow}
    if arguments.run is not None and any((*filters.values(), since, until)):
        raise CommandFailed("--run: names one run, so leave the other filters out", USAGE)
    shards = count_shards(connection)
    return Selection.of(shards, run=arguments.run, since=since, until=until, **filters)


@command(
    *_SELECTION,
    option("--afresh", action="store_true", help="do not resume an unfinished rebuild"),
    option("--background", action="store_true", help="let a worker do it; `runfold jobs` shows it"),
    JSON,
)
def rebuild(arguments: Namespace, context: Context) -> int:
    """examples:
      runfold rebuild                               everything
      runfold rebuild --project acme --since 7d     runs that began within the last week
      runfold rebuild --run RUN

    Ingest and reads continue. Rows that are correct are not written again, and workers keep their
    shards. After an interruption or a kill the same command resumes where it was; `--afresh` starts
    over. The exit code is 1 if the ledger has events that cannot be read.
    """
    output, kind = context.output, rebuilding.KIND
    with open_database(context.settings) as connection:
        selection = _select(arguments, connection)
        requested = selection.as_arguments()
        if arguments.background:
            job_id = add_job(connection, kind, requested, background=True)
            text = f"job {job_id}: `runfold jobs {job_id}` shows its progress"
            output.result({"job": str(job_id)}, text)
            return OK
        job = None if arguments.afresh else find_unfinished(connection, kind, requested)
        if job is not None and job.progress is not None:
            before = msgspec.convert(job.progress, rebuilding.Progress)
            say(f"resuming job {job.id}, after {before.looked_at:,} runs")
        job_id = job.id if job else add_job(connection, kind, requested)
        with progress_bar("refolding", estimate_runs(connection, selection)) as show:

            def on_progress(progress: rebuilding.Progress) -> None:
                show(progress.looked_at, "refolding" if progress.phase == "runs" else "statistics")

            progress = run_stoppable(
                lambda stop: rebuilding.rebuild(connection, job_id, stop, on_progress)
            )
    output.result(
        _pick(progress, "looked_at", "runs", "rollups", "unreadable"),
        f"refolded {progress.looked_at:,} runs; corrected {progress.runs:,} of them and"
        f" {progress.rollups:,} further statistics",
    )
    if progress.unreadable and not output.is_json:
        say(
            f"left {progress.unreadable:,} runs unchanged because the ledger has events of them"
            " that cannot be read: `runfold verify` lists these runs"
        )
    return FAILED if progress.unreadable else OK


@command(*_SELECTION, JSON)
def verify(arguments: Namespace, context: Context) -> int:
    """examples:
      runfold verify                    everything; lists the differences
      runfold verify --project acme --json
      runfold verify --run RUN

    Folds runs again from the ledger and compares the result with the tables, including statistics.
    It writes nothing and takes no locks. The exit code is 1 if anything differs; `runfold repair`
    corrects the differences.
    """
    findings = _compare(arguments, context)
    if findings.differences and not context.output.is_json:
        say("`runfold repair` with the same filters corrects them")
    return FAILED if findings.differences else OK


@command(*_SELECTION, JSON)
def repair(arguments: Namespace, context: Context) -> int:
    """examples:
      runfold repair                    everything that `runfold verify` finds
      runfold repair --run RUN

    Ingest and reads continue. A difference that has disappeared in the meantime is left alone. If
    whole tables are wrong, use `runfold rebuild`, which resumes after an interruption. The exit
    code is 1 if the ledger has events that cannot be read.
    """
    findings = _compare(arguments, context, correct_findings)
    return FAILED if any(not run.is_repairable for run in findings.runs) else OK


def _compare(arguments: Namespace, context: Context, correct: Correct | None = None) -> Findings:
    """Print each difference as it is found; then, with `correct`, correct all of them."""
    output = context.output
    listed: list[Mismatch] = []
    left_out = 0

    def on_difference(difference: Mismatch) -> None:
        nonlocal left_out
        if len(listed) == _MAX_LISTED:
            left_out += 1
            return
        listed.append(difference)
        if not output.is_json:
            output.line(_describe(difference))

    with open_database(context.settings) as connection:
        selection = _select(arguments, connection)
        with progress_bar("comparing", estimate_runs(connection, selection)) as show:

            def on_progress(findings: Findings) -> None:
                show(findings.looked_at, findings.doing)

            def work(stop: threading.Event) -> tuple[Findings, int | None]:
                findings = examine(connection, selection, on_difference, on_progress, stop)
                if correct is None:
                    return findings, None
                show(findings.looked_at, "repairing")
                return findings, correct(connection, findings, stop)

            remain = "; corrections so far remain" if correct else ""
            findings, repaired = run_stoppable(work, lambda: f"interrupted{remain}")
    differences = findings.differences
    document = {"looked_at": findings.looked_at, "differences": differences, "listed": listed}
    found = f"{differences:,} differences" if differences else "no differences"
    text = f"compared {findings.looked_at:,} runs and their statistics: {found}"
    if repaired is not None:
        document["repaired"] = repaired
        text += f", {repaired:,} corrected"
    output.result(document, (f"… and {left_out:,} more\n" if left_out else "") + text)
    return findings


def _describe(difference: Mismatch) -> str:
    of = " ".join(f"{key}={_shown(value)}" for key, value in difference.of.items() if value)
    fields = ", ".join(
        f"{field.name}: {_shown(field.found)} instead of {_shown(field.expected)}"
        for field in difference.fields
    )
    head = f"{difference.table} {difference.what}: {of} shard={difference.shard}"
    return plain(": ".join(filter(None, (head, fields or difference.reason))))


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 200 else text[:200] + "…"


@command(
    option("--from", dest="archive", metavar="ARCHIVE", help="folder or URL (RUNFOLD_ARCHIVE)"),
    option("--ledger", metavar="URL", help="add events of this database's ledger"),
    JSON,
)
def restore(arguments: Namespace, context: Context) -> None:
    """examples:
      runfold migrate && runfold restore --from /var/lib/runfold-archive
      runfold restore --from s3://bucket/runfold --ledger postgresql://replica/runfold

    Restores the history into an empty database after the old one was lost: events, runs, nodes and
    statistics as they were before retention expired them. Deleted runs stay deleted. --ledger adds
    the newer events from a database whose table `events` can still be read: the old one, a replica,
    or a restored dump. Workers may run meanwhile. After an interruption or a kill the same command
    resumes; a second restore changes nothing.

    An archive with another number of shards is refused, and so is a database in which retention has
    expired runs, because their statistics still count there: `runfold show` opens archived runs
    without restoring them. After the restore, set the retention policies again, and choose another
    folder for the archive: the old one already contains what the restored database would archive.
    """
    settings, output = context.settings, context.output
    archive_url = arguments.archive or settings.archive_url
    if not archive_url:
        raise CommandFailed("no archive is named: give --from ARCHIVE or RUNFOLD_ARCHIVE", USAGE)
    with open_database(settings) as connection:
        archive = open_archive(archive_url)
        # Imported after `open_archive`, which explains how to install pyarrow if it is missing.
        from runfold_storage.archive.layout import KINDS
        from runfold_storage.archive.store import files_of
        from runfold_workers.retention import restore as restoring

        restoring.check(connection, archive)
        requested = {"archive": archive.shown}
        job = find_unfinished(connection, restoring.KIND, requested)
        if job is not None and job.progress is not None:
            say(f"resuming job {job.id}")
        job_id = job.id if job is not None else add_job(connection, restoring.KIND, requested)
        files = sum(len(files_of(archive, kind)) for kind in KINDS)
        with progress_bar("restoring", files, "files") as show:

            def on_progress(progress: restoring.Progress) -> None:
                show(progress.files, (progress.kinds or ["done"])[0])

            def work(stop: threading.Event) -> restoring.Progress:
                given = (connection, job_id, stop, archive, on_progress)
                if arguments.ledger is None:
                    return restoring.restore(*given)
                with connect(arguments.ledger, autocommit=True) as ledger:
                    return restoring.restore(*given, ledger=ledger)

            progress = run_stoppable(work)
    output.result(
        _pick(progress, "events", "runs", "rollups"),
        f"restored {progress.events:,} events, {progress.runs:,} runs and {progress.rollups:,}"
        " statistics of runs whose rows have expired",
    )
    if not output.is_json:
        say("`runfold verify` compares runs and statistics with the ledger")


def _pick(value: msgspec.Struct, *fields: str) -> dict[str, Any]:
    return {field: getattr(value, field) for field in fields}

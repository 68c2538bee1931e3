"""`runfold retention`: how long what is kept, and what that does."""

import threading
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from datetime import UTC, datetime

import psycopg

from runfold_stack.commands import Context
from runfold_stack.options import name, whole_number
from runfold_stack.outcomes import FAILED, INTERRUPTED, OK, USAGE, CommandFailed
from runfold_stack.output import Output, cell, make_table
from runfold_stack.selections import progress_bar
from runfold_stack.servers import require_database
from runfold_stack.stopping import run_stoppable
from runfold_storage.archive.tombstones import read_deleted
from runfold_storage.databases import connect
from runfold_storage.jobs import Interrupted, add_job, find_unfinished, hold_kind
from runfold_storage.migrate import check_schema
from runfold_storage.one_run import open_archive
from runfold_storage.retention import (
    MAX_DAYS,
    Policy,
    forget_policy,
    read_policies,
    set_policy,
)
from runfold_workers.retaining import KIND, Progress, plan, retain

_EPILOG = """\
examples:
  runfold retention show
  runfold retention set --payloads 30 --runs 365 --stats never     every project without its own
  runfold retention set --project acme --payloads 7 --runs 90
  runfold retention set --project acme --unset
  runfold retention run --dry-run                                  what is due?
  runfold retention purge                                          deleted runs, out of the archive

In days, or `never`. The age of a run counts from its end, or from its last sign of life. When its
payloads go, its row and figures stay; when its row goes, its figures stay. A run that has lost its
payloads takes no more events. Workers do what is due once a day; `run` does it now.

With RUNFOLD_ARCHIVE what goes is put there first, as Parquet, and nothing goes that is not there;
`runfold show` and the API open archived runs, and `runfold restore` brings them back. Runs that
were deleted since are not shown; `purge` takes them out of the files.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("what", choices=("show", "set", "run", "purge"), help="what to do")
    parser.add_argument("--project", type=name, help="set: only for this project")
    parser.add_argument("--payloads", type=_days, metavar="DAYS", help="set: events of a run")
    parser.add_argument("--runs", type=_days, metavar="DAYS", help="set: rows of runs and nodes")
    parser.add_argument("--stats", type=_days, metavar="DAYS", help="set: statistics")
    parser.add_argument("--unset", action="store_true", help="set: no policy of its own any more")
    parser.add_argument("--dry-run", action="store_true", help="run: only say what is due")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Show, set, or do what is due."""
    given = (arguments.project, arguments.payloads, arguments.runs, arguments.stats)
    if arguments.what != "set" and (any(each is not None for each in given) or arguments.unset):
        raise CommandFailed("--project, --payloads, --runs, --stats and --unset go with set", USAGE)
    if arguments.what != "run" and arguments.dry_run:
        raise CommandFailed("--dry-run: goes with run", USAGE)
    url = require_database(context.settings)
    check_schema(url)
    with connect(url, autocommit=True) as connection:
        if arguments.what == "run":
            if arguments.dry_run:
                return _show_plan(connection, context.output)
            return _run(connection, context.output, context.settings.archive_url)
        if arguments.what == "purge":
            return _purge(connection, context.output, context.settings.archive_url)
        if arguments.what == "set":
            _set(connection, arguments)
        return _show(connection, context.output)


def _set(connection: psycopg.Connection, arguments: Namespace) -> None:
    days = {
        "payload_days": arguments.payloads,
        "run_days": arguments.runs,
        "stats_days": arguments.stats,
    }
    if arguments.unset:
        if any(value is not None for value in days.values()):
            raise CommandFailed("--unset: goes with no number of days", USAGE)
        if not forget_policy(connection, arguments.project):
            raise CommandFailed("there is no such policy: `runfold retention show` lists them")
        return
    if all(value is None for value in days.values()):
        raise CommandFailed("say how long: --payloads, --runs, --stats, or --unset", USAGE)
    # What is not said stays as it was.
    before = next(
        (each for each in read_policies(connection) if each.project == arguments.project),
        Policy(arguments.project),
    )
    chosen = {
        field: getattr(before, field) if value is None else (value or None)
        for field, value in days.items()
    }
    set_policy(connection, Policy(arguments.project, **chosen))


def _show(connection: psycopg.Connection, output: Output) -> int:
    policies = read_policies(connection)
    if output.is_json:
        output.json({"policies": policies})
        return OK
    table = make_table("PROJECT", "PAYLOADS", "RUNS", "STATS")
    for policy in policies:
        table.add_row(
            "(all others)" if policy.project is None else cell(policy.project),
            *(
                "never" if days is None else f"{days} days"
                for days in (policy.payload_days, policy.run_days, policy.stats_days)
            ),
        )
    output.table(table)
    if not policies:
        output.note("everything is kept for ever: `runfold retention set` says otherwise")
    return OK


def _show_plan(connection: psycopg.Connection, output: Output) -> int:
    due = plan(connection, datetime.now(UTC))
    if output.is_json:
        output.json(due)
        return OK
    output.line(
        f"due: payloads of {due.payloads:,} runs, rows of {due.runs:,} runs,"
        f" {due.rollups:,} statistics"
    )
    if due.partitions:
        output.line(f"partitions that go as a whole: {', '.join(due.partitions)}")
    return OK


def _run(connection: psycopg.Connection, output: Output, archive_url: str | None) -> int:
    job = find_unfinished(connection, KIND, {})
    job_id = job.id if job is not None else add_job(connection, KIND, {})

    def work(stop: threading.Event) -> Progress:
        return retain(connection, job_id, stop, archive_url=archive_url)

    try:
        progress = run_stoppable(work)
    except Interrupted:
        output.note("interrupted; the same command goes on from here")
        return INTERRUPTED
    if output.is_json:
        output.json(
            {
                "partitions": progress.partitions,
                "postponed": progress.postponed,
                "payloads": progress.payloads,
                "runs": progress.runs,
                "rollups": progress.rollups,
                "archived_events": progress.archived_events,
                "archived_runs": progress.archived_runs,
            }
        )
    else:
        output.line(
            f"payloads of {progress.payloads:,} runs, rows of {progress.runs:,} runs and"
            f" {progress.rollups:,} statistics have gone"
        )
        if archive_url is not None:
            output.line(
                f"archived before: {progress.archived_events:,} events,"
                f" {progress.archived_runs:,} runs"
            )
        if progress.partitions:
            output.line(f"dropped: {', '.join(progress.partitions)}")
        if progress.postponed:
            output.note(f"in use all the time, left for later: {', '.join(progress.postponed)}")
    return FAILED if progress.postponed else OK


def _purge(connection: psycopg.Connection, output: Output, archive_url: str | None) -> int:
    if archive_url is None:
        raise CommandFailed("there is no archive: set RUNFOLD_ARCHIVE", USAGE)
    archive = open_archive(archive_url)
    # Only now: it needs pyarrow, and says so if it is missing.
    from runfold_storage.archive.purging import deleted_keys, purge

    with hold_kind(connection, KIND), progress_bar("purging", 0, "files") as seen:
        gone = deleted_keys(archive) | read_deleted(connection)
        files, events = purge(archive, gone, lambda n: seen(n, "purging"))
    if output.is_json:
        output.json({"files": files, "events": events})
    else:
        output.line(f"took {events:,} events of deleted runs out of {files:,} files")
    return OK


def _days(text: str) -> int:
    """0 for `never`."""
    if text == "never":
        return 0
    try:
        return whole_number(1, MAX_DAYS)(text)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{error}, or never") from None

"""`runfold retention`: show, set and apply retention policies."""

import threading
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import datetime, timedelta

import psycopg
from msgspec import structs

from runfold_stack.endpoints import require_database
from runfold_stack.exit_codes import FAILED, OK, USAGE, CommandFailed
from runfold_stack.options.values import name, whole_number
from runfold_stack.processes.signals import run_stoppable
from runfold_stack.terminal.formats import moment
from runfold_stack.terminal.output import Output, cell, make_table
from runfold_stack.terminal.progress import progress_bar
from runfold_storage.archive.journal import read_deleted
from runfold_storage.jobs import add_job, find_unfinished, lock_kind
from runfold_storage.migrate import check_schema
from runfold_storage.postgres.connections import connect, read_clock
from runfold_storage.queries.run.reader import open_archive
from runfold_storage.retention.due_runs import RetentionPlan
from runfold_storage.retention.policies import (
    MAX_DAYS,
    Policy,
    apply_all_now,
    delete_policy,
    read_policies,
    set_policy,
)
from runfold_workers.retention.job import KIND, Progress, plan, retain

from . import Context

EPILOG = """\
examples:
  runfold retention show
  runfold retention set --payloads 30 --runs 365 --stats never     every project without its own
  runfold retention set --project acme --payloads 7 --runs 90
  runfold retention set --project acme --unset
  runfold retention run --dry-run                                  what has expired
  runfold retention run --dry-run --payloads 7 --runs 14           what this policy would expire
  runfold retention purge                                          delete runs from the archive

Ages are in days, or `never`. The age of a run counts from its end, or from its last sign of life.
When payloads expire, the run's row and statistics stay, and the run accepts no more events; when
the row expires, the statistics stay.

Workers delete expired data once a day, after midnight (UTC). `set` prints what the policy would
expire. A policy that expires more than before takes effect on the next day, after an hour at the
earliest, and its project loses nothing until then; a more generous one takes effect immediately.
`run` applies all policies now, including those that are not yet in effect.

With RUNFOLD_ARCHIVE, expired data is written there as Parquet before it is deleted. `runfold show`
and the API open archived runs, and `runfold restore` restores them. Archived runs that have been
deleted are not shown; `purge` removes them from the files.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("what", choices=("show", "set", "run", "purge"), help="what to do")
    policy = parser.add_argument_group("the policy, for set and run --dry-run")
    policy.add_argument("--project", type=name, help="only for this project")
    policy.add_argument("--payloads", type=_days, metavar="DAYS", help="keep events of runs")
    policy.add_argument("--runs", type=_days, metavar="DAYS", help="keep rows of runs and nodes")
    policy.add_argument("--stats", type=_days, metavar="DAYS", help="keep statistics")
    parser.add_argument("--unset", action="store_true", help="set: remove the policy")
    parser.add_argument("--dry-run", action="store_true", help="run: only print what has expired")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Show, set or apply policies, or purge the archive."""
    _check(arguments)
    url = require_database(context.settings)
    check_schema(url)
    with connect(url, autocommit=True) as connection:
        if arguments.what == "run":
            if arguments.dry_run:
                return _show_plan(connection, context.output, _chosen(connection, arguments))
            return _run(connection, context.output, context.settings.archive_url)
        if arguments.what == "purge":
            return _purge(connection, context.output, context.settings.archive_url)
        if arguments.what == "set":
            return _set(connection, context.output, arguments)
        return _show(connection, context.output)


def _check(arguments: Namespace) -> None:
    given = any(
        each is not None
        for each in (arguments.project, arguments.payloads, arguments.runs, arguments.stats)
    )
    is_run = arguments.what == "run"
    if (given and arguments.what != "set" and not (is_run and arguments.dry_run)) or (
        arguments.unset and arguments.what != "set"
    ):
        raise CommandFailed(
            "--project, --payloads, --runs and --stats are for set and run --dry-run;"
            " --unset is for set",
            USAGE,
        )
    if arguments.dry_run and not is_run:
        raise CommandFailed("--dry-run: is for run", USAGE)
    if arguments.unset and _days_of(arguments):
        raise CommandFailed("--unset: takes no numbers of days", USAGE)


def _days_of(arguments: Namespace) -> dict[str, int | None]:
    days = {
        "payload_days": arguments.payloads,
        "run_days": arguments.runs,
        "stats_days": arguments.stats,
    }
    return {field: value for field, value in days.items() if value is not None}


def _chosen(connection: psycopg.Connection, arguments: Namespace) -> Policy | None:
    """Return the policy on the command line; ages that are not given stay as they are."""
    before = next(
        (each for each in read_policies(connection) if each.project == arguments.project), None
    )
    days = _days_of(arguments)
    if not days:
        if arguments.project is not None:
            raise CommandFailed("give an age: --payloads, --runs or --stats", USAGE)
        return None
    chosen = {field: value or None for field, value in days.items()}
    policy = Policy(arguments.project)
    if before is not None:
        policy = Policy(before.project, before.payload_days, before.run_days, before.stats_days)
    return structs.replace(policy, **chosen)


def _set(connection: psycopg.Connection, output: Output, arguments: Namespace) -> int:
    if arguments.unset:
        if not delete_policy(connection, arguments.project):
            raise CommandFailed("there is no such policy: `runfold retention show` lists them")
        return _show(connection, output)
    policy = _chosen(connection, arguments)
    if policy is None:
        raise CommandFailed("give an age: --payloads, --runs or --stats; or --unset", USAGE)
    due = plan(connection, policy)
    set_policy(connection, policy)
    return _show(connection, output, policy, due)


def _show(
    connection: psycopg.Connection,
    output: Output,
    policy: Policy | None = None,
    due: RetentionPlan | None = None,
) -> int:
    """Print the policies, and what the one just set would expire."""
    policies = read_policies(connection)
    if output.is_json:
        output.json({"policies": policies} | ({} if due is None else {"due": due}))
        return OK
    now = read_clock(connection)
    table = make_table("PROJECT", "PAYLOADS", "RUNS", "STATS", "IN EFFECT")
    for each in policies:
        table.add_row(
            "(all others)" if each.project is None else cell(each.project),
            *(
                "never" if days is None else f"{days} days"
                for days in (each.payload_days, each.run_days, each.stats_days)
            ),
            "now" if each.holds_from <= now else f"from {moment(each.holds_from)}",
        )
    output.table(table)
    if not policies:
        output.note("no policies: everything is kept; `runfold retention set` adds one")
    if policy is not None and due is not None:
        holds_from = next(e.holds_from for e in policies if e.project == policy.project)
        output.line(f"if it were in effect now, it would expire {_amounts(due, policy, now)}")
        output.line(
            f"nothing expires before {moment(max(holds_from, now))}: the next daily run after that"
            " deletes it; `runfold retention run` does so now"
        )
    return OK


def _amounts(due: RetentionPlan, policy: Policy | None, now: datetime) -> str:
    """Describe what expires, with dates if a single policy decides."""

    def before(days: int | None, what: str) -> str:
        return "" if days is None else f" {what}before {moment(now - timedelta(days=days))}"

    policy = policy or Policy(None)
    return (
        f"payloads of {due.payloads:,} runs{before(policy.payload_days, 'that ended ')},"
        f" rows of {due.runs:,} runs{before(policy.run_days, 'that ended ')},"
        f" {due.rollups:,} statistics of {due.hours:,} hours{before(policy.stats_days, '')}"
    )


def _show_plan(connection: psycopg.Connection, output: Output, policy: Policy | None) -> int:
    due = plan(connection, policy)
    if output.is_json:
        output.json(due)
        return OK
    output.line(f"expired: {_amounts(due, policy, read_clock(connection))}")
    if due.partitions:
        output.line(f"partitions that are dropped as a whole: {', '.join(due.partitions)}")
    return OK


def _run(connection: psycopg.Connection, output: Output, archive_url: str | None) -> int:
    apply_all_now(connection)
    job = find_unfinished(connection, KIND, {})

    def work(stop: threading.Event) -> Progress:
        before = Progress()
        if job is not None:
            before = retain(connection, job.id, stop, archive_url=archive_url)
            if all(each.holds_from <= job.created_at for each in read_policies(connection)):
                return before
        # The unfinished job applied the policies of its time; this one applies the present ones.
        return before.plus(
            retain(connection, add_job(connection, KIND, {}), stop, archive_url=archive_url)
        )

    progress = run_stoppable(work)
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
            f"deleted payloads of {progress.payloads:,} runs, rows of {progress.runs:,} runs and"
            f" {progress.rollups:,} statistics"
        )
        if archive_url is not None:
            output.line(
                f"archived {progress.archived_events:,} events and {progress.archived_runs:,} runs"
                " before"
            )
        if progress.partitions:
            output.line(f"dropped partitions: {', '.join(progress.partitions)}")
        if progress.postponed:
            output.note(f"postponed, constantly in use: {', '.join(progress.postponed)}")
    return FAILED if progress.postponed else OK


def _purge(connection: psycopg.Connection, output: Output, archive_url: str | None) -> int:
    if archive_url is None:
        raise CommandFailed("there is no archive: set RUNFOLD_ARCHIVE", USAGE)
    archive = open_archive(archive_url)
    # Imported after `open_archive`, which explains how to install pyarrow if it is missing.
    from runfold_storage.archive.purge import deleted_keys, purge

    with lock_kind(connection, KIND), progress_bar("purging", 0, "files") as show:
        deleted = deleted_keys(archive) | read_deleted(connection)
        files, events = purge(archive, deleted, lambda count: show(count, "purging"))
    text = f"removed {events:,} events of deleted runs from {files:,} files"
    output.result({"files": files, "events": events}, text)
    return OK


def _days(text: str) -> int:
    """Return a number of days; 0 for `never`."""
    if text == "never":
        return 0
    try:
        return whole_number(1, MAX_DAYS)(text)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{error}, or never") from None

"""`runfold retention`: show, set and apply retention policies."""

import threading
from argparse import ArgumentTypeError, Namespace
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
from msgspec import structs

from runfold_stack.endpoints import open_database
from runfold_stack.errors import FAILED, OK, USAGE, CommandFailed
from runfold_stack.options import JSON, Group, name, option, whole_number
from runfold_stack.processes.signals import run_stoppable
from runfold_stack.terminal.formats import moment
from runfold_stack.terminal.output import Output, cell, progress_bar, say
from runfold_stack.terminal.tables import Table
from runfold_storage.archive.journal import read_deleted
from runfold_storage.jobs import add_job, find_unfinished, lock_kind
from runfold_storage.postgres.connections import read_clock
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

from . import Context, command

_AGES: Final = ("payload_days", "run_days", "stats_days")


def _days(text: str) -> int:
    """Return a number of days; 0 for `never`."""
    try:
        return 0 if text == "never" else whole_number(1, MAX_DAYS)(text)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{error}, or never") from None


_AGE: Final[dict[str, Any]] = {"type": _days, "metavar": "DAYS"}


@command(
    option("what", choices=("show", "set", "run", "purge"), help="what to do"),
    Group(
        "the policy, for set and run --dry-run",
        (
            option("--project", type=name, help="only for this project"),
            option("--payloads", dest="payload_days", help="keep events of runs", **_AGE),
            option("--runs", dest="run_days", help="keep rows of runs and nodes", **_AGE),
            option("--stats", dest="stats_days", help="keep statistics", **_AGE),
        ),
    ),
    option("--unset", action="store_true", help="set: remove the policy"),
    option("--dry-run", action="store_true", help="run: only print what has expired"),
    JSON,
)
def retention(arguments: Namespace, context: Context) -> int:
    """examples:
      runfold retention show
      runfold retention set --payloads 30 --runs 365 --stats never     every project without its own
      runfold retention set --project acme --payloads 7 --runs 90
      runfold retention set --project acme --unset
      runfold retention run --dry-run                                  what has expired
      runfold retention run --dry-run --payloads 7 --runs 14           what this policy would expire
      runfold retention purge                                          delete runs from the archive

    Ages are in days, or `never`. The age of a run counts from its end, or from its last sign of
    life. When payloads expire, the run's row and statistics stay, and the run accepts no more
    events; when the row expires, the statistics stay.

    Workers delete expired data once a day, after midnight (UTC). `set` prints what the policy would
    expire. A policy that expires more than before takes effect on the next day, after an hour at
    the earliest, and its project loses nothing until then; a more generous one takes effect
    immediately. `run` applies all policies now, including those that are not yet in effect.

    With RUNFOLD_ARCHIVE, expired data is written there as Parquet before it is deleted. `runfold
    show` and the API open archived runs, and `runfold restore` restores them. Archived runs that
    have been deleted are not shown; `purge` removes them from the files.
    """
    _check(arguments)
    output, archive_url = context.output, context.settings.archive_url
    with open_database(context.settings) as connection:
        match arguments.what:
            case "run" if arguments.dry_run:
                policy = _chosen(connection, arguments)
                due = plan(connection, policy)
                partitions = ", ".join(due.partitions)
                dropped = f"\npartitions that are dropped as a whole: {partitions}"
                expired = f"expired: {_amounts(due, policy, read_clock(connection))}"
                output.result(due, expired + (dropped if partitions else ""))
            case "run":
                return _apply(connection, output, archive_url)
            case "purge":
                _purge(connection, output, archive_url)
            case "set":
                _set(connection, output, arguments)
            case _:
                _show(connection, output)
    return OK


def _check(arguments: Namespace) -> None:
    days, what = _days_of(arguments), arguments.what
    is_plan = what == "run" and arguments.dry_run
    given = arguments.project is not None or days
    problem = None
    if what != "set" and (arguments.unset or (given and not is_plan)):
        policy = "--project, --payloads, --runs and --stats are for set and run --dry-run"
        problem = f"{policy}; --unset is for set"
    elif arguments.dry_run and what != "run":
        problem = "--dry-run: is for run"
    elif arguments.unset and days:
        problem = "--unset: takes no numbers of days"
    if problem is not None:
        raise CommandFailed(problem, USAGE)


def _days_of(arguments: Namespace) -> dict[str, int | None]:
    given = {field: getattr(arguments, field) for field in _AGES}
    return {field: days or None for field, days in given.items() if days is not None}


def _chosen(connection: psycopg.Connection, arguments: Namespace) -> Policy | None:
    """Return the policy on the command line; ages that are not given stay as they are."""
    days = _days_of(arguments)
    if not days:
        if arguments.project is not None:
            raise CommandFailed("give an age: --payloads, --runs or --stats", USAGE)
        return None
    before = [each for each in read_policies(connection) if each.project == arguments.project]
    kept = {field: getattr(each, field) for each in before for field in _AGES}
    return structs.replace(Policy(arguments.project, **kept), **days)


def _set(connection: psycopg.Connection, output: Output, arguments: Namespace) -> None:
    if arguments.unset:
        if not delete_policy(connection, arguments.project):
            raise CommandFailed("there is no such policy: `runfold retention show` lists them")
        _show(connection, output)
        return
    policy = _chosen(connection, arguments)
    if policy is None:
        raise CommandFailed("give an age: --payloads, --runs or --stats; or --unset", USAGE)
    due = plan(connection, policy)
    set_policy(connection, policy)
    _show(connection, output, policy, due)


def _show(
    connection: psycopg.Connection,
    output: Output,
    policy: Policy | None = None,
    due: RetentionPlan | None = None,
) -> None:
    policies = read_policies(connection)
    if output.is_json:
        output.json({"policies": policies} | ({} if due is None else {"due": due}))
        return
    now = read_clock(connection)
    table = Table("PROJECT", "PAYLOADS", "RUNS", "STATS", "IN EFFECT")
    for each in policies:
        ages = (getattr(each, field) for field in _AGES)
        table.add_row(
            "(all others)" if each.project is None else cell(each.project),
            *("never" if days is None else f"{days} days" for days in ages),
            "now" if each.holds_from <= now else f"from {moment(each.holds_from)}",
        )
    output.table(table)
    if not policies:
        say("no policies: everything is kept; `runfold retention set` adds one")
    if policy is not None and due is not None:
        holds_from = next(e.holds_from for e in policies if e.project == policy.project)
        output.line(f"if it were in effect now, it would expire {_amounts(due, policy, now)}")
        output.line(
            f"nothing expires before {moment(max(holds_from, now))}: the next daily run after that"
            " deletes it; `runfold retention run` does so now"
        )


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


def _apply(connection: psycopg.Connection, output: Output, archive_url: str | None) -> int:
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
    counts = ("payloads", "runs", "rollups", "archived_events", "archived_runs")
    document = {name: getattr(progress, name) for name in ("partitions", "postponed", *counts)}
    lines = [
        f"deleted payloads of {progress.payloads:,} runs, rows of {progress.runs:,} runs and"
        f" {progress.rollups:,} statistics"
    ]
    if archive_url is not None:
        archived = f"{progress.archived_events:,} events and {progress.archived_runs:,} runs"
        lines.append(f"archived {archived} before")
    if progress.partitions:
        lines.append(f"dropped partitions: {', '.join(progress.partitions)}")
    output.result(document, "\n".join(lines))
    if progress.postponed and not output.is_json:
        say(f"postponed, constantly in use: {', '.join(progress.postponed)}")
    return FAILED if progress.postponed else OK


def _purge(connection: psycopg.Connection, output: Output, archive_url: str | None) -> None:
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

"""`runfold retention`: how long what is kept, and what that does."""

import threading
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from datetime import datetime, timedelta

import psycopg
from msgspec import structs

from runfold_stack.endpoints import require_database
from runfold_stack.exit_codes import FAILED, INTERRUPTED, OK, USAGE, CommandFailed
from runfold_stack.options.selection import progress_bar
from runfold_stack.options.values import name, whole_number
from runfold_stack.processes.signals import run_stoppable
from runfold_stack.terminal.formats import moment
from runfold_stack.terminal.output import Output, cell, make_table
from runfold_storage.archive.journal import read_deleted
from runfold_storage.jobs import JobInterrupted, add_job, find_unfinished, hold_kind
from runfold_storage.migrate import check_schema
from runfold_storage.postgres.connections import connect, read_clock
from runfold_storage.queries.run.reader import open_archive
from runfold_storage.retention.due_runs import RetentionPlan
from runfold_storage.retention.policies import (
    MAX_DAYS,
    Policy,
    forget_policy,
    hold_now,
    read_policies,
    set_policy,
)
from runfold_workers.retention.job import KIND, Progress, plan, retain

from . import Context

_EPILOG = """\
examples:
  runfold retention show
  runfold retention set --payloads 30 --runs 365 --stats never     every project without its own
  runfold retention set --project acme --payloads 7 --runs 90
  runfold retention set --project acme --unset
  runfold retention run --dry-run                                  what is due?
  runfold retention run --dry-run --payloads 7 --runs 14           what would be, by this policy?
  runfold retention purge                                          deleted runs, out of the archive

In days, or `never`. The age of a run counts from its end, or from its last sign of life. When its
payloads go, its row and figures stay; when its row goes, its figures stay. A run that has lost its
payloads takes no more events.

Workers do what is due once a day, after midnight (UTC). `set` says what the policy would take: one
that takes more than before waits for the next day, for an hour at least, and its project loses
nothing until then; a more generous one holds at once. `run` does now all that is due, by policies
that wait, too.

With RUNFOLD_ARCHIVE what goes is put there first, as Parquet, and nothing goes that is not there;
`runfold show` and the API open archived runs, and `runfold restore` brings them back. Runs that
were deleted since are not shown; `purge` takes them out of the files.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("what", choices=("show", "set", "run", "purge"), help="what to do")
    policy = parser.add_argument_group("a policy, for set and run --dry-run")
    policy.add_argument("--project", type=name, help="only for this project")
    policy.add_argument("--payloads", type=_days, metavar="DAYS", help="events of a run")
    policy.add_argument("--runs", type=_days, metavar="DAYS", help="rows of runs and nodes")
    policy.add_argument("--stats", type=_days, metavar="DAYS", help="statistics")
    parser.add_argument("--unset", action="store_true", help="set: no policy of its own any more")
    parser.add_argument("--dry-run", action="store_true", help="run: only say what is due")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Show, set, or do what is due."""
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
            "--project, --payloads, --runs and --stats go with set, or with run --dry-run;"
            " --unset goes with set",
            USAGE,
        )
    if arguments.dry_run and not is_run:
        raise CommandFailed("--dry-run: goes with run", USAGE)
    if arguments.unset and _days_of(arguments):
        raise CommandFailed("--unset: goes with no number of days", USAGE)


def _days_of(arguments: Namespace) -> dict[str, int | None]:
    days = {
        "payload_days": arguments.payloads,
        "run_days": arguments.runs,
        "stats_days": arguments.stats,
    }
    return {field: value for field, value in days.items() if value is not None}


def _chosen(connection: psycopg.Connection, arguments: Namespace) -> Policy | None:
    """The policy that is asked about; days that are not given stay as they are."""
    before = next(
        (each for each in read_policies(connection) if each.project == arguments.project), None
    )
    days = _days_of(arguments)
    if not days:
        if arguments.project is not None:
            raise CommandFailed("say how long: --payloads, --runs, --stats", USAGE)
        return None
    chosen = {field: value or None for field, value in days.items()}
    policy = Policy(arguments.project)
    if before is not None:
        policy = Policy(before.project, before.payload_days, before.run_days, before.stats_days)
    return structs.replace(policy, **chosen)


def _set(connection: psycopg.Connection, output: Output, arguments: Namespace) -> int:
    if arguments.unset:
        if not forget_policy(connection, arguments.project):
            raise CommandFailed("there is no such policy: `runfold retention show` lists them")
        return _show(connection, output)
    policy = _chosen(connection, arguments)
    if policy is None:
        raise CommandFailed("say how long: --payloads, --runs, --stats, or --unset", USAGE)
    due = plan(connection, policy)
    set_policy(connection, policy)
    return _show(connection, output, policy, due)


def _show(
    connection: psycopg.Connection,
    output: Output,
    policy: Policy | None = None,
    due: RetentionPlan | None = None,
) -> int:
    """The policies; with what the one that was just set would take."""
    policies = read_policies(connection)
    if output.is_json:
        output.json({"policies": policies} | ({} if due is None else {"due": due}))
        return OK
    now = read_clock(connection)
    table = make_table("PROJECT", "PAYLOADS", "RUNS", "STATS", "HOLDS")
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
        output.note("everything is kept for ever: `runfold retention set` says otherwise")
    if policy is not None and due is not None:
        holds_from = next(e.holds_from for e in policies if e.project == policy.project)
        output.line(f"if it held by now, it would take {_amounts(due, policy, now)}")
        output.line(
            f"nothing goes before {moment(max(holds_from, now))}:"
            " the next daily run after that takes it; `runfold retention run` does now"
        )
    return OK


def _amounts(due: RetentionPlan, policy: Policy | None, now: datetime) -> str:
    """What goes; and of when it is, where that follows from one policy."""

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
    output.line(f"due: {_amounts(due, policy, read_clock(connection))}")
    if due.partitions:
        output.line(f"partitions that go as a whole: {', '.join(due.partitions)}")
    return OK


def _run(connection: psycopg.Connection, output: Output, archive_url: str | None) -> int:
    hold_now(connection)
    job = find_unfinished(connection, KIND, {})

    def work(stop: threading.Event) -> Progress:
        before = Progress()
        if job is not None:
            before = retain(connection, job.id, stop, archive_url=archive_url)
            if all(each.holds_from <= job.created_at for each in read_policies(connection)):
                return before
        # What was left is what held at the time.
        return before.plus(
            retain(connection, add_job(connection, KIND, {}), stop, archive_url=archive_url)
        )

    try:
        progress = run_stoppable(work)
    except JobInterrupted:
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
    from runfold_storage.archive.purge import deleted_keys, purge

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

"""`runfold doctor`, `jobs` and `search`: look after a deployment."""

from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from rich.text import Text

from runfold_stack.endpoints import open_database, require_database
from runfold_stack.errors import FAILED, OK, USAGE, CommandFailed
from runfold_stack.options import JSON, limit, name, option
from runfold_stack.terminal.formats import duration, moment
from runfold_stack.terminal.output import STYLES, Output, cell, plain, say
from runfold_stack.terminal.tables import Table
from runfold_storage.admin import MAX_JOBS, Admin
from runfold_storage.jobs import STATUSES, Job
from runfold_storage.search.indexer import IndexState, create_indexes, read_state, restart_scan
from runfold_storage.search.projects import (
    SearchedProject,
    disable_payload_search,
    enable_payload_search,
    read_projects,
)

from . import Context, command


@command(
    option(
        "--acknowledge", action="store_true", help="report the incidents, then acknowledge them"
    ),
    JSON,
)
def doctor(arguments: Namespace, context: Context) -> int:
    """The checks change nothing. --acknowledge marks the incidents so far as acknowledged, so that
    they are not reported again. The exit code is 1 if a check fails; warnings alone leave it at 0.
    """
    from runfold_stack.doctor.examination import examine  # slow: it imports Alembic

    output = context.output
    findings = []
    today = datetime.now(UTC).date()
    for finding in examine(context.settings, today, acknowledge=arguments.acknowledge):
        findings.append(finding)
        if not output.is_json:  # printed as soon as it is known
            level = (f"{finding.level:<5}", STYLES[finding.level])
            check = (f"{finding.check:<18}", "bold")
            output.console.print(Text.assemble(level, check, plain(finding.found)), soft_wrap=True)
            if finding.remedy:
                output.line(f"{'':<23}→ {plain(finding.remedy)}")
    healthy = all(finding.level != "fail" for finding in findings)
    if output.is_json:
        output.json({"healthy": healthy, "findings": findings})
    return OK if healthy else FAILED


@command(
    option("job", nargs="?", metavar="JOB", help="show this job, with all details"),
    option("--status", choices=STATUSES, help="only jobs with this status"),
    limit("jobs", 20, MAX_JOBS),
    JSON,
)
def jobs(arguments: Namespace, context: Context) -> None:
    """examples:
      runfold jobs                      the newest jobs
      runfold jobs --status running
      runfold jobs JOB --json           one job, with all details

    Jobs are large deletions, rebuilds and retention. `runfold worker` runs those in the background.
    """
    output = context.output
    admin = Admin(require_database(context.settings))
    if arguments.job is not None:
        job = _read_job(admin, arguments.job)
        output.result(job, "\n".join(_fields_of(job)))
        return
    found = admin.jobs(limit=arguments.limit, status=arguments.status)
    output.result({"jobs": found}, lambda: _print_jobs(found, output))


def _read_job(admin: Admin, job_id: str) -> Job:
    try:
        job = admin.job(UUID(job_id))
    except ValueError:
        job = None
    if job is None:
        raise CommandFailed(f"there is no job {plain(job_id)!r}: `runfold jobs` lists them")
    return job


def _print_jobs(found: list[Job], output: Output) -> None:
    table = Table("STATUS", "JOB", "KIND", "CREATED", "DURATION", "PROGRESS")
    for job in found:
        table.add_row(
            Text(job.status, STYLES.get(job.status, "")),
            str(job.id),
            job.kind,
            moment(job.created_at),
            _duration(job),
            cell(job.error or _on_one_line(job.result or job.progress)),
        )
    output.table(table)
    if not found:
        say("no jobs")


def _fields_of(job: Job) -> list[str]:
    fields = {"job": str(job.id), "kind": job.kind, "status": job.status}
    for each in ("created", "started", "finished"):
        fields[each] = moment(getattr(job, f"{each}_at"))
    fields["duration"] = _duration(job)
    for each in ("arguments", "progress", "result"):
        fields[each] = _on_one_line(getattr(job, each))
    fields["error"] = job.error or ""
    return [f"{each:<10} {plain(value)}" for each, value in fields.items() if value]


def _duration(job: Job) -> str:
    if job.started_at is None:
        return ""
    end = job.finished_at or datetime.now(UTC)
    return duration((end - job.started_at).total_seconds() * 1000)


def _on_one_line(value: dict[str, Any] | None) -> str:
    return msgspec.json.encode(value).decode() if value else ""


@command(
    option("what", choices=("show", "set", "rebuild"), help="what to do"),
    option("--project", type=name, help="set: the project"),
    option("--payloads", choices=("on", "off"), help="set: index inputs and outputs"),
    JSON,
)
def search(arguments: Namespace, context: Context) -> None:
    """examples:
      runfold search show
      runfold search set --project acme --payloads on
      runfold search set --project acme --payloads off
      runfold search rebuild
      runfold runs --project acme --payload order-4711

    `runfold runs --search` searches the workflow, id, tags and errors of all runs. `--payload`
    searches inputs and outputs, for projects that have this switched on: the first 4096 characters
    of each run that has ended. A job worker maintains the index, shortly behind the fold. Switching
    payloads on indexes existing runs, newest first; switching them off removes them. `rebuild`
    compares every run with the index again, and creates the index if PostgreSQL had no pg_trgm when
    the schema was made.
    """
    given = (arguments.project, arguments.payloads)
    if arguments.what == "set" and None in given:
        raise CommandFailed("set needs --project and --payloads on or off", USAGE)
    if arguments.what != "set" and given != (None, None):
        raise CommandFailed("--project and --payloads are for set", USAGE)
    with open_database(context.settings) as connection:
        if arguments.what == "rebuild":
            create_indexes(connection)
            restart_scan(connection)
        elif arguments.payloads == "on":
            enable_payload_search(connection, arguments.project)
        elif arguments.payloads and not disable_payload_search(connection, arguments.project):
            raise CommandFailed(f"payloads of {arguments.project} are not indexed")
        state, projects = read_state(connection), read_projects(connection)
    output = context.output
    output.result(
        {"index": state, "projects": projects}, lambda: _print_index(state, projects, output)
    )


def _print_index(state: IndexState, projects: Sequence[SearchedProject], output: Output) -> None:
    output.line(f"index: {_state_of(state)}")
    table = Table("PROJECT", "PAYLOADS", "SINCE")
    for project in projects:
        since = f"{project.since:%Y-%m-%d %H:%M} UTC so far" if project.since else "the beginning"
        is_wanted = "indexed" if project.wanted else "being removed"
        table.add_row(cell(project.project), is_wanted, since)
    output.table(table)
    if not projects:
        say("no project has searchable payloads: `runfold search set` switches them on")


def _state_of(state: IndexState) -> str:
    if not state.has_trigrams:
        return "none, as PostgreSQL had no pg_trgm: searches scan the runs"
    behind = f"{state.behind:,} changes behind"
    if state.reading_shards:
        return f"scanning runs on {state.reading_shards} of {state.shards} shards, {behind}"
    return behind if state.behind else "up to date"

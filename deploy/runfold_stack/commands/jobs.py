"""`runfold jobs`: list long-running jobs with their progress and results."""

from argparse import Namespace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from rich.text import Text

from runfold_stack.endpoints import require_database
from runfold_stack.errors import CommandFailed
from runfold_stack.options import JSON, option, whole_number
from runfold_stack.terminal.formats import duration, moment
from runfold_stack.terminal.output import STYLES, Output, cell, plain, say
from runfold_stack.terminal.tables import Table
from runfold_storage.admin import MAX_JOBS, Admin
from runfold_storage.jobs import STATUSES, Job

from . import Context, command


@command(
    option("job", nargs="?", metavar="JOB", help="show this job, with all details"),
    option("--status", choices=STATUSES, help="only jobs with this status"),
    option(
        "--limit", type=whole_number(1, MAX_JOBS), default=20, help="maximum number of jobs (20)"
    ),
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
        job = _read(admin, arguments.job)
        output.result(job, "\n".join(_describe(job)))
        return
    found = admin.jobs(limit=arguments.limit, status=arguments.status)
    output.result({"jobs": found}, lambda: _print(found, output))


def _read(admin: Admin, job_id: str) -> Job:
    try:
        job = admin.job(UUID(job_id))
    except ValueError:
        job = None
    if job is None:
        raise CommandFailed(f"there is no job {plain(job_id)!r}: `runfold jobs` lists them")
    return job


def _print(found: list[Job], output: Output) -> None:
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


def _describe(job: Job) -> list[str]:
    fields = {
        "job": str(job.id),
        "kind": job.kind,
        "status": job.status,
        "created": moment(job.created_at),
        "started": moment(job.started_at),
        "finished": moment(job.finished_at),
        "duration": _duration(job),
        "arguments": _on_one_line(job.arguments),
        "progress": _on_one_line(job.progress),
        "result": _on_one_line(job.result),
        "error": job.error or "",
    }
    return [f"{name:<10} {plain(value)}" for name, value in fields.items() if value]


def _duration(job: Job) -> str:
    if job.started_at is None:
        return ""
    end = job.finished_at or datetime.now(UTC)
    return duration((end - job.started_at).total_seconds() * 1000)


def _on_one_line(value: dict[str, Any] | None) -> str:
    return msgspec.json.encode(value).decode() if value else ""

"""`runfold jobs`: work that takes long, how far it has come, and how it ended."""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from rich.text import Text

from runfold_stack.endpoints import require_database
from runfold_stack.exit_codes import CommandFailed
from runfold_stack.options.values import whole_number
from runfold_stack.terminal.formats import duration, moment
from runfold_stack.terminal.output import STYLES, Output, cell, make_table, plain
from runfold_storage.admin import MAX_JOBS, Admin
from runfold_storage.jobs import STATUSES, Job

from . import Context

_EPILOG = """\
examples:
  runfold jobs                      the newest
  runfold jobs --status running
  runfold jobs JOB --json           one, whole

Large deletions, rebuilds and retention. Those in the background are done by `runfold worker`.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("job", nargs="?", metavar="JOB", help="only this one, whole")
    parser.add_argument("--status", choices=STATUSES, help="only those with this status")
    parser.add_argument(
        "--limit", type=whole_number(1, MAX_JOBS), default=20, help="at most so many (20)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Read and print."""
    output = context.output
    upkeep = Admin(require_database(context.settings))
    if arguments.job is not None:
        job = _read(upkeep, arguments.job)
        if output.is_json:
            output.json(job)
        else:
            _print_one(job, output)
        return 0
    jobs = upkeep.jobs(limit=arguments.limit, status=arguments.status)
    if output.is_json:
        output.json({"jobs": jobs})
    else:
        _print(jobs, output)
    return 0


def _read(upkeep: Admin, job_id: str) -> Job:
    try:
        job = upkeep.job(UUID(job_id))
    except ValueError:
        job = None
    if job is None:
        raise CommandFailed(f"there is no job {plain(job_id)!r}: `runfold jobs` lists them")
    return job


def _print(jobs: list[Job], output: Output) -> None:
    table = make_table("STATUS", "JOB", "KIND", "CREATED", "TOOK", "SO FAR")
    for job in jobs:
        table.add_row(
            Text(job.status, STYLES.get(job.status, "")),
            str(job.id),
            job.kind,
            moment(job.created_at),
            _took(job),
            cell(job.error or _told(job.result or job.progress)),
        )
    output.table(table)
    if not jobs:
        output.note("no jobs")


def _print_one(job: Job, output: Output) -> None:
    for name, value in (
        ("job", str(job.id)),
        ("kind", job.kind),
        ("status", job.status),
        ("created", moment(job.created_at)),
        ("started", moment(job.started_at)),
        ("finished", moment(job.finished_at)),
        ("took", _took(job)),
        ("arguments", _told(job.arguments)),
        ("progress", _told(job.progress)),
        ("result", _told(job.result)),
        ("error", job.error or ""),
    ):
        if value:
            output.line(f"{name:<10} {plain(value)}")


def _took(job: Job) -> str:
    if job.started_at is None:
        return ""
    end = job.finished_at or datetime.now(UTC)
    return duration((end - job.started_at).total_seconds() * 1000)


def _told(value: dict[str, Any] | None) -> str:
    """Only what fits on a line."""
    if not value:
        return ""
    return msgspec.json.encode(value).decode()

"""Background jobs: which kinds exist, and how a worker does one."""

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID

import msgspec
import psycopg
from msgspec import Struct

from runfold_storage.admin import DELETE, DeleteArguments
from runfold_storage.errors import DatabaseUnreachable, JobLocked
from runfold_storage.jobs import (
    UNFINISHED,
    JobInterrupted,
    fail_job,
    finish_job,
    read_job,
    requeue_job,
    resume_job,
)
from runfold_storage.postgres.connections import connect
from runfold_storage.projections.batch_writer import prepare_session
from runfold_storage.retention.run_deletion import ListKey, delete_runs
from runfold_workers.integrity import rebuild
from runfold_workers.retention import job as retaining

log = logging.getLogger(__name__)

Work = Callable[[psycopg.Connection, UUID, threading.Event], object]


PASSING: Final = (psycopg.OperationalError, psycopg.InterfaceError, DatabaseUnreachable)
"""Errors after which the job is left as it is and queued again."""


def do_job(
    database_url: str, job_id: UUID, stop: threading.Event, *, archive_url: str | None = None
) -> None:
    """Do or resume the job until it ends or `stop` is set; its row says how it ended."""
    works: dict[str, Work] = {  # nothing else is ever called
        rebuild.KIND: rebuild.rebuild,
        DELETE: delete,
        retaining.KIND: partial(retaining.retain, archive_url=archive_url),
    }
    try:
        with connect(database_url, autocommit=True, application_name="runfold-job") as connection:
            _do(connection, job_id, stop, works)
    except PASSING as error:
        log.warning("job left unfinished", extra={"job": str(job_id), "reason": str(error)})


def _do(
    connection: psycopg.Connection, job_id: UUID, stop: threading.Event, works: Mapping[str, Work]
) -> None:
    job = read_job(connection, job_id)
    if job is None or job.status not in UNFINISHED:
        log.info("job has already ended", extra={"job": str(job_id)})
        return
    extra = {"job": str(job_id), "kind": job.kind}
    work = works.get(job.kind)
    if work is None:
        fail_job(connection, job_id, f"this worker knows no job of kind {job.kind!r}")
        return
    log.info("job started", extra=extra)
    try:
        work(connection, job_id, stop)
        log.info("job done", extra=extra)
    except JobLocked:
        log.info("another worker has the job", extra=extra)
    except JobInterrupted:
        requeue_job(connection, job_id)
        log.info("job left for the next worker", extra=extra)
    except PASSING:
        raise
    except Exception as error:
        log.exception("job failed", extra=extra)
        fail_job(connection, job_id, f"{type(error).__name__}: {error}"[:2000])


class DeletionProgress(Struct):
    """The progress of a deletion, stored in `jobs`."""

    deleted: int = 0
    """May miss the last step before a crash, whose progress was not saved."""
    after: tuple[datetime, UUID] | None = None


def delete(connection: psycopg.Connection, job_id: UUID, stop: threading.Event) -> None:
    """Do or resume a job of this kind; raise `JobInterrupted` or `JobLocked`."""
    prepare_session(connection)
    job_steps = resume_job(connection, job_id, DELETE, DeletionProgress, stop)
    with job_steps as (job, progress, save):
        arguments = msgspec.convert(job.arguments, DeleteArguments)

        def add(n: int, after: ListKey | None) -> None:
            progress.deleted += n
            progress.after = after
            save()

        deletion, up_to, after = arguments.deletion, arguments.up_to, progress.after
        delete_runs(connection, deletion, up_to=up_to, after=after, on_progress=add, stop=stop)
        finish_job(connection, job_id, {"deleted": progress.deleted})

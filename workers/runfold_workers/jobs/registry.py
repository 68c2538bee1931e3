"""Work that is done in the background: which kinds there are, and how one job is done.

A job is done by whoever is given its id, on a connection of its own, and twice by nobody: it holds
the job's lock, and a job that has ended is left alone.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final
from uuid import UUID

import psycopg

from runfold_storage.admin import DELETE
from runfold_storage.errors import DatabaseUnreachable, JobLocked
from runfold_storage.jobs import UNFINISHED, JobInterrupted, fail_job, leave_job, read_job
from runfold_storage.postgres.connections import connect
from runfold_workers.integrity import rebuild
from runfold_workers.retention import job as retaining

from .delete_runs import delete

log = logging.getLogger(__name__)

Work = Callable[[psycopg.Connection, UUID, threading.Event], object]


def kinds(archive_url: str | None) -> Mapping[str, Work]:
    """All that can be asked for; nothing else is ever called."""
    return {
        rebuild.KIND: rebuild.rebuild,
        DELETE: delete,
        retaining.KIND: partial(retaining.retain, archive_url=archive_url),
    }


PASSING: Final = (psycopg.OperationalError, psycopg.InterfaceError, DatabaseUnreachable)
"""What is waited out: the job stays where it is, and is handed out again."""


def do_job(
    database_url: str, job_id: UUID, stop: threading.Event, *, archive_url: str | None = None
) -> None:
    """Do the job, or the rest of it, as far as `stop` allows; how it ended stands in its row."""
    try:
        with connect(database_url, autocommit=True, application_name="runfold-job") as connection:
            _do(connection, job_id, stop, kinds(archive_url))
    except PASSING as error:
        log.warning("a job was left", extra={"job": str(job_id), "reason": str(error)})


def _do(
    connection: psycopg.Connection, job_id: UUID, stop: threading.Event, works: Mapping[str, Work]
) -> None:
    job = read_job(connection, job_id)
    if job is None or job.status not in UNFINISHED:
        log.info("there is nothing left to do", extra={"job": str(job_id)})
        return
    work = works.get(job.kind)
    if work is None:
        fail_job(connection, job_id, f"this worker knows no work called {job.kind!r}")
        return
    log.info("working", extra={"job": str(job_id), "kind": job.kind})
    try:
        work(connection, job_id, stop)
    except JobLocked:
        log.info("another process is at it", extra={"job": str(job_id)})
    except JobInterrupted:
        leave_job(connection, job_id)
        log.info("left for the next worker", extra={"job": str(job_id)})
    except PASSING:
        raise
    except Exception as error:
        log.exception("a job failed", extra={"job": str(job_id), "kind": job.kind})
        fail_job(connection, job_id, f"{type(error).__name__}: {error}"[:2000])
    else:
        log.info("done", extra={"job": str(job_id), "kind": job.kind})

"""Background jobs: their arguments, progress and results.

Invariant: a process works on a job only while it holds the job's advisory lock, and only on the
connection that holds it. So two processes cannot run the same job, and a job whose process dies, or
whose connection breaks, is free at once and resumes from its saved progress. The lock belongs to
the session: jobs need session pooling, as workers do.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any, Final, LiteralString, NamedTuple, TypeVar
from uuid import UUID, uuid4, uuid5

import msgspec
import psycopg
from msgspec import Struct
from psycopg.types.json import Jsonb

from runfold.crash_points import crash_point

from .errors import JobLocked

_CLASS: Final = 0x4A4F4253
"""'JOBS': the first half of the advisory locks; the second is a hash of the id."""

_NAMES: Final = UUID("6f0c5c4e-7a1b-5d3e-9f66-2f1c8c1f9a40")

STATUSES: Final = ("queued", "running", "completed", "failed", "cancelled")
UNFINISHED: Final = ("queued", "running")


class JobInterrupted(Exception):
    """The job was asked to stop; the next worker resumes it."""


class Job(Struct, frozen=True):
    """One row of `jobs`."""

    id: UUID
    kind: str
    status: str
    background: bool
    arguments: dict[str, Any]
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def add_job(
    connection: psycopg.Connection,
    kind: str,
    arguments: Mapping[str, Any],
    *,
    background: bool = False,
    once: str | None = None,
) -> UUID:
    """Create a job, in the `background` for a worker, `once` under one name; return its id."""
    job_id = uuid4() if once is None else uuid5(_NAMES, f"{kind} {once}")
    connection.execute(
        """
        INSERT INTO jobs (id, kind, arguments, background) VALUES (%s, %s, %s, %s)
        ON CONFLICT (id) DO NOTHING
        """,
        (job_id, kind, Jsonb(dict(arguments)), background),
    )
    return job_id


def read_job(connection: psycopg.Connection, job_id: UUID) -> Job | None:
    """Return a job; None if there is none with this id."""
    return next(_read(connection, "id = %s", job_id), None)


def list_jobs(
    connection: psycopg.Connection, limit: int = 50, *, status: str | None = None
) -> list[Job]:
    """Return the newest jobs first."""
    return list(_read(connection, "(status = %s OR %s::text IS NULL)", status, status, limit=limit))


def newest_job(connection: psycopg.Connection, kind: str) -> Job | None:
    """Return the newest background job of this kind; None if there was none."""
    return next(_read(connection, "background AND kind = %s", kind), None)


def find_unfinished(
    connection: psycopg.Connection, kind: str, arguments: Mapping[str, Any]
) -> Job | None:
    """Return the newest unfinished foreground job of this kind with these arguments."""
    wanted = "NOT background AND kind = %s AND arguments = %s AND status = ANY(%s)"
    return next(_read(connection, wanted, kind, Jsonb(dict(arguments)), list(UNFINISHED)), None)


def _read(
    connection: psycopg.Connection, condition: str, *parameters: Any, limit: int = 1
) -> Iterator[Job]:
    """Yield the newest jobs that fulfil an SQL condition."""
    rows = connection.execute(
        f"""
        SELECT id, kind, status, background, arguments, progress, result, error, created_at,
               started_at, finished_at
        FROM jobs WHERE {condition} ORDER BY created_at DESC, id LIMIT %s
        """,  # noqa: S608 - conditions are constants
        (*parameters, limit),
    )
    for row in rows:
        yield Job(*row)


def lock_job(connection: psycopg.Connection, job_id: UUID) -> AbstractContextManager[None]:
    """Lock a job; raise `JobLocked` if another process works on it."""
    return _hold(connection, str(job_id), f"job {job_id} is being worked on by another process")


def lock_kind(connection: psycopg.Connection, kind: str) -> AbstractContextManager[None]:
    """Lock all jobs of a kind; raise `JobLocked` if another process works on one."""
    return _hold(connection, kind, f"another process is at work on {kind}: `runfold jobs` shows it")


@contextmanager
def _hold(connection: psycopg.Connection, name: str, complaint: str) -> Iterator[None]:
    lock = (_CLASS, name)
    row = connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", lock).fetchone()
    if row != (True,):
        raise JobLocked(complaint)
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", lock)


def start_job(connection: psycopg.Connection, job_id: UUID) -> None:
    """Mark the job as running; it may have run before."""
    started = "status = 'running', started_at = coalesce(started_at, now()), error = NULL"
    _update(connection, job_id, started)


_ProgressT = TypeVar("_ProgressT", bound=Struct)


@contextmanager
def resume_job(
    connection: psycopg.Connection,
    job_id: UUID,
    kind: str,
    progress: type[_ProgressT],
    stop: threading.Event,
    on_progress: Callable[[_ProgressT], None] = lambda _: None,
) -> Iterator[tuple[Job, _ProgressT, Callable[[], None]]]:
    """Lock and start a job; yield it, its progress, and a function that saves the progress.

    Raises `JobLocked` if another process works on it. Saving raises `JobInterrupted` once `stop` is
    set.
    """
    with lock_job(connection, job_id):
        job = read_job(connection, job_id)
        if job is None or job.kind != kind:
            raise LookupError(f"there is no job {job_id} of the kind {kind}")
        reached = msgspec.convert(job.progress or {}, progress)
        start_job(connection, job_id)

        def save() -> None:
            save_progress(connection, job_id, reached)
            crash_point("after_progress")
            on_progress(reached)
            if stop.is_set():
                raise JobInterrupted

        yield job, reached, save


def requeue_job(connection: psycopg.Connection, job_id: UUID) -> None:
    """Return the job to the queue; the next worker resumes from its saved progress."""
    connection.execute(
        "UPDATE jobs SET status = 'queued' WHERE id = %s AND status = 'running'", (job_id,)
    )


def unclaimed_jobs(connection: psycopg.Connection, limit: int = 1000) -> list[UUID]:
    """Return unfinished background jobs that no process works on, the oldest first."""
    rows = connection.execute(
        """
        SELECT j.id FROM jobs AS j
        WHERE j.background AND j.status = ANY(%(unfinished)s) AND NOT EXISTS (
            SELECT FROM pg_locks AS l
            WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              -- pg_locks shows both halves as unsigned numbers.
              AND l.classid::bigint = %(class)s
              AND l.objid::bigint = hashtext(j.id::text)::bigint & 4294967295
        )
        ORDER BY j.created_at, j.id LIMIT %(limit)s
        """,
        {"unfinished": list(UNFINISHED), "class": _CLASS, "limit": limit},
    )
    return [job_id for (job_id,) in rows]


class JobCounts(NamedTuple):
    """Numbers of background jobs; `old` ones are unfinished for more than a minute."""

    unfinished: int
    old: int
    failed: int
    """In the last seven days."""


def count_jobs(connection: psycopg.Connection) -> JobCounts:
    """Count the background jobs."""
    (row,) = connection.execute(
        """
        SELECT count(*) FILTER (WHERE status = ANY(%(unfinished)s)),
               count(*) FILTER (WHERE status = ANY(%(unfinished)s)
                                  AND created_at < now() - interval '1 minute'),
               count(*) FILTER (WHERE status = 'failed' AND finished_at > now() - interval '7 days')
        FROM jobs WHERE background
        """,
        {"unfinished": list(UNFINISHED)},
    )
    return JobCounts(*row)


def try_become_leader(connection: psycopg.Connection) -> bool:
    """Return whether this session is the leader, which dispatches jobs until the session ends."""
    row = connection.execute(
        "SELECT pg_try_advisory_lock(%s, hashtext('the chair'))", (_CLASS,)
    ).fetchone()
    return row == (True,)


def save_progress(connection: psycopg.Connection, job_id: UUID, progress: Struct) -> None:
    """Save the progress of a job, in the struct of its kind."""
    _update(connection, job_id, "progress = %s", Jsonb(msgspec.to_builtins(progress)))


def finish_job(connection: psycopg.Connection, job_id: UUID, result: Mapping[str, Any]) -> None:
    """Mark the job as completed."""
    completed = "status = 'completed', result = %s, error = NULL, finished_at = now()"
    _update(connection, job_id, completed, Jsonb(dict(result)))


def fail_job(connection: psycopg.Connection, job_id: UUID, error: str) -> None:
    """Mark the job as failed."""
    failed = "status = 'failed', result = NULL, error = %s, finished_at = now()"
    _update(connection, job_id, failed, error)


def _update(
    connection: psycopg.Connection, job_id: UUID, assignments: LiteralString, *values: Any
) -> None:
    connection.execute(f"UPDATE jobs SET {assignments} WHERE id = %s", (*values, job_id))  # noqa: S608

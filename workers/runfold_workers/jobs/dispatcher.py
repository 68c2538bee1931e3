"""Handing out work: one process at a time brings the table's jobs into the queue.

Whoever holds an advisory lock of the database has the chair; when it dies, or its connection does,
the next one takes it. It brings everything into the queue that is to be done and that nobody is
at, and again what it brought there before and cannot see any more: a queue that was lost, a worker
that died. Twice is harmless: who comes second finds the job taken, or done.

Once a day it notes down a job for retention, named for its day, so that there is one however often
the chair changes hands; if that of the day before was not done, it is an incident. Nothing is noted
down before a policy holds.
"""

import time
from datetime import UTC, date
from typing import Final
from uuid import UUID

import psycopg
from rq import Queue

from runfold_storage.checkpoints.incidents import raise_incident
from runfold_storage.jobs import UNFINISHED, add_job, jobs_waiting, newest_job, try_become_leader
from runfold_storage.postgres.connections import read_clock
from runfold_storage.retention.policies import shortest_days
from runfold_workers.retention.job import KIND

from .rq_queue import put

PATIENCE_S: Final = 5.0
"""How long a job may be on its way from the queue to a worker before it is brought again."""


class JobDispatcher:
    """On a connection of its own, which is in autocommit mode."""

    def __init__(self, connection: psycopg.Connection, queue: Queue) -> None:
        self._connection = connection
        self._queue = queue
        self._has_chair = False
        self._brought: dict[UUID, float] = {}
        self._scheduled: date | None = None

    def turn(self) -> None:
        """Bring what is to be done; nothing, if another process does."""
        self._has_chair = self._has_chair or try_become_leader(self._connection)
        if not self._has_chair:
            return
        self._schedule()
        now = time.monotonic()
        waiting = jobs_waiting(self._connection)
        self._brought = {job: at for job, at in self._brought.items() if job in set(waiting)}
        for job_id in waiting:
            if now - self._brought.get(job_id, -PATIENCE_S) >= PATIENCE_S:
                put(self._queue, job_id)
                self._brought[job_id] = now

    def _schedule(self) -> None:
        now = read_clock(self._connection)
        today = now.astimezone(UTC).date()
        if today == self._scheduled or shortest_days(self._connection, now) is None:
            return
        last = newest_job(self._connection, KIND)
        was_before = last is not None and last.created_at.astimezone(UTC).date() < today
        if last is not None and was_before and last.status != "completed":
            raise_incident(self._connection, "retention_behind")
        if last is None or last.status not in UNFINISHED:
            add_job(self._connection, KIND, {}, background=True, once=today.isoformat())
        self._scheduled = today

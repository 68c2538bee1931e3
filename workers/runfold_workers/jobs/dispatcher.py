"""One process at a time, the leader, brings jobs from the table into the queue.

Once a day it adds a retention job, named for its day so that there is only one. If the job of the
day before was not completed, an incident is raised. No job is added while no policy applies.
"""

import time
from datetime import UTC, date
from typing import Final
from uuid import UUID

import psycopg
from rq import Queue

from runfold_storage.checkpoints.incidents import raise_incident
from runfold_storage.jobs import UNFINISHED, add_job, newest_job, try_become_leader, unclaimed_jobs
from runfold_storage.postgres.connections import read_clock
from runfold_storage.retention.policies import shortest_days
from runfold_workers.retention.job import KIND

from .rq_queue import put

PATIENCE_S: Final = 5.0
"""How long a job may be between queue and worker before it is queued again."""


class JobDispatcher:
    """Queues jobs; needs an autocommit connection of its own."""

    def __init__(self, connection: psycopg.Connection, queue: Queue) -> None:
        self._connection = connection
        self._queue = queue
        self._is_leader = False
        self._queued_at: dict[UUID, float] = {}
        self._scheduled: date | None = None

    def turn(self) -> None:
        """Queue waiting jobs; do nothing while another process is the leader."""
        self._is_leader = self._is_leader or try_become_leader(self._connection)
        if not self._is_leader:
            return
        self._schedule()
        now = time.monotonic()
        waiting = unclaimed_jobs(self._connection)
        self._queued_at = {job: at for job, at in self._queued_at.items() if job in set(waiting)}
        for job_id in waiting:
            if now - self._queued_at.get(job_id, -PATIENCE_S) >= PATIENCE_S:
                put(self._queue, job_id)
                self._queued_at[job_id] = now

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

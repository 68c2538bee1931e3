"""The queue of jobs in Redis, which the leader, one process at a time, fills from the table `jobs`.

RQ's workers import and call what an entry in Redis names: the function, callbacks, webhooks. Ours
read the id of an entry and nothing else. The table is the truth, so losing the queue loses nothing.

Once a day the leader adds a retention job, named for its day so that there is only one. If the job
of the day before was not completed, an incident is raised. No job is added while no policy applies.
"""

import logging
import time
from datetime import UTC, date
from typing import Any, Final
from uuid import UUID

import psycopg
import redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from runfold.protocol import streams
from runfold_storage.checkpoints.incidents import raise_incident
from runfold_storage.jobs import UNFINISHED, add_job, newest_job, try_become_leader, unclaimed_jobs
from runfold_storage.postgres.connections import read_clock
from runfold_storage.retention.policies import shortest_days
from runfold_workers.retention.job import KIND

log = logging.getLogger(__name__)

NAME: Final = "runfold-jobs"
DO_JOB: Final = "runfold:do_job"
"""The function name in each entry of the queue; it is no import path."""
DATABASE: Final = 1
"""Number of the Redis database for the queue, beside the streams' own."""


def connect_queue(redis_url: str, jobs_redis_url: str | None) -> redis.Redis:
    """Return a client for the queue: its own URL, else another database of the streams' Redis."""
    client = streams.connect(jobs_redis_url or redis_url)
    if jobs_redis_url is None:
        options = client.connection_pool.connection_kwargs
        options["db"] = DATABASE if options.get("db", 0) != DATABASE else DATABASE + 1
    return client


def make_queue(client: redis.Redis) -> Queue:
    """Return the only queue."""
    return Queue(NAME, connection=client, serializer=JSONSerializer)


def put(queue: Queue, job_id: UUID) -> None:
    """Append a job unless it is queued already."""
    name = str(job_id)
    if name in queue.job_ids:
        return
    # RQ would keep fields of an earlier entry with this name.
    queue.connection.delete(Job.key_for(name))
    queue.enqueue_call(DO_JOB, args=(name,), job_id=name, timeout=-1)


def take(queue: Queue, timeout_s: int) -> UUID | None:
    """Remove the next entry and return its id; None after `timeout_s`, or if it is not ours."""
    found: Any = queue.connection.blpop([queue.key], timeout_s)
    if found is None:
        return None
    name = found[1].decode(errors="replace")
    queue.connection.delete(Job.key_for(name))
    try:
        return UUID(name)
    except ValueError:
        log.warning("a queue entry was not written by Runfold: %.100r", name)
        return None


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

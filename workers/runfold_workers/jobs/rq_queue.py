"""The queue of jobs in Redis: RQ, reduced to passing ids.

RQ's workers import and call what an entry in Redis names: the function, callbacks, webhooks. Ours
read the id of an entry and nothing else, so whatever an entry names, nothing is imported. The table
`jobs` is the truth, so losing the queue loses nothing (`dispatcher`).
"""

import logging
from typing import Any, Final
from uuid import UUID

import redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from runfold.protocol import streams

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

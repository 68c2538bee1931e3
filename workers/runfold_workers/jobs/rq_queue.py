"""The queue of jobs in Redis: RQ, reduced to passing ids.

RQ imports and calls what an entry in Redis names, whatever the serializer: the function, callbacks
for success and failure, webhooks. Here nothing is imported. One name stands for `do_job`; every
other entry is refused, and its callbacks are never read. The table `jobs` is the truth, so losing
the queue loses nothing (`dispatcher`).
"""

import threading
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import redis
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty
from rq.worker import WorkerStatus

from runfold.protocol import streams

NAME: Final = "runfold-jobs"
DO_JOB: Final = "runfold:do_job"
"""The function name in each entry of the queue; it is no import path."""
DATABASE: Final = 1
"""Number of the Redis database for the queue, beside the streams' own."""


class JobRefused(Exception):
    """Raised for a queue entry that Runfold has not written."""


class RunfoldJob(Job):
    """An entry of the queue; `do` is the function behind the one known name."""

    do: Callable[[str], None] | None = None

    @property
    def func(self) -> Any:
        """Return `do`; nothing is imported. Raise `JobRefused` for a foreign entry."""
        callbacks = (
            self._success_callback_name,
            self._failure_callback_name,
            self._stopped_callback_name,
        )
        if (
            self.func_name != DO_JOB
            or self.instance is not None
            or any(callbacks)
            or self.do is None
        ):
            raise JobRefused(f"queue entry {self.id[:100]!r} was not written by Runfold")
        return self.do

    @property
    def success_callback(self) -> Any:
        """None: callbacks would be imported by their names."""
        return None

    failure_callback = stopped_callback = success_callback

    def send_webhooks(self, *_: Any, **__: Any) -> None:
        """Send nothing."""


class SequentialWorker(SimpleWorker):
    """Does one job at a time in the calling thread, until `stop` is set."""

    job_class = RunfoldJob
    death_penalty_class = TimerDeathPenalty
    max_connection_wait_time = 1.0
    log_job_description = log_result_lifespan = False

    def __init__(self, queue: Queue, do: Callable[[UUID], None], stop: threading.Event) -> None:
        super().__init__(
            [queue],
            connection=queue.connection,
            serializer=JSONSerializer,
            log_job_description=False,
        )
        self._do = do
        self._stop = stop

    def dequeue_job_and_maintain_ttl(
        self,
        timeout: int | None,  # noqa: ARG002 - theirs
        max_idle_time: int | None = None,  # noqa: ARG002
    ) -> tuple[Job, Queue] | None:
        """Wait for the next job, a second at a time."""
        while not self._stop.is_set():
            found = super().dequeue_job_and_maintain_ttl(1, max_idle_time=1)
            if found is not None:
                return found
        raise StopRequested

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run the job in this thread; a forked child would outlive a killed worker."""
        if isinstance(job, RunfoldJob):
            job.do = lambda job_id: self._do(UUID(job_id))
        super().execute_job(job, queue)

    def bootstrap(self, *_: Any, **__: Any) -> None:
        """Start without RQ's log handlers and without listening to commands over Redis."""
        self.register_birth()  # type: ignore[no-untyped-call]
        self.set_state(WorkerStatus.STARTED)

    def unsubscribe(self) -> None:
        """Do nothing: there is no subscription."""

    def procline(self, message: str) -> None:
        """Do nothing: the process keeps its name."""

    def _install_signal_handlers(self) -> None:
        """Do nothing: the main thread handles signals."""

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Return False: `dispatcher` queues lost jobs again."""
        return False


def connect_queue(redis_url: str, jobs_redis_url: str | None) -> redis.Redis:
    """Return a client for the queue: its own URL, else another database of the streams' Redis."""
    client = streams.connect(jobs_redis_url or redis_url)
    if jobs_redis_url is None:
        options = client.connection_pool.connection_kwargs
        options["db"] = DATABASE if options.get("db", 0) != DATABASE else DATABASE + 1
    return client


def make_queue(client: redis.Redis) -> Queue:
    """Return the only queue."""
    return Queue(NAME, connection=client, job_class=RunfoldJob, serializer=JSONSerializer)


def put(queue: Queue, job_id: UUID) -> None:
    """Append a job unless it is queued already."""
    name = str(job_id)
    if name in queue.job_ids:
        return
    # RQ would keep fields of an earlier entry with this name.
    queue.connection.delete(RunfoldJob.key_for(name))
    queue.enqueue_call(
        DO_JOB, args=(name,), job_id=name, timeout=-1, result_ttl=0, failure_ttl=3600
    )

"""The queue of jobs in Redis: RQ, cut down to handing over ids.

What RQ finds in Redis says by name what to call, and RQ would import and call it, whichever
serializer there is: the function, callbacks for success and failure, web addresses to tell. Here
nothing is imported. There is one name, which stands for `do_job`; an entry that says anything else
is refused, and its callbacks are never looked at. The table `jobs` is the truth, so losing the
queue loses nothing (`handing_out`).
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
"""What an entry of the queue says is to be called. A name, and no path to anything."""
DATABASE: Final = 1
"""Number of the Redis database for the queue, beside the streams' own."""


class JobRefused(Exception):
    """An entry of the queue that we have not written."""


class RunfoldJob(Job):
    """An entry of the queue; `do` is what the one name stands for."""

    do: Callable[[str], None] | None = None

    @property
    def func(self) -> Any:
        """Never imported."""
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
            raise JobRefused(f"{self.id[:100]!r} is none of ours")
        return self.do

    @property
    def success_callback(self) -> Any:
        """None: callbacks would be imported by their names."""
        return None

    failure_callback = stopped_callback = success_callback

    def send_webhooks(self, *_: Any, **__: Any) -> None:
        """Nobody is told."""


class SequentialWorker(SimpleWorker):
    """Does one job at a time, in the thread that it was started in, until it is told to stop."""

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
        """Wait for the next one, a second at a time."""
        while not self._stop.is_set():
            found = super().dequeue_job_and_maintain_ttl(1, max_idle_time=1)
            if found is not None:
                return found
        raise StopRequested

    def execute_job(self, job: Job, queue: Queue) -> None:
        """In this thread; a child of its own would outlive us when we are killed."""
        if isinstance(job, RunfoldJob):
            job.do = lambda job_id: self._do(UUID(job_id))
        super().execute_job(job, queue)

    def bootstrap(self, *_: Any, **__: Any) -> None:
        """Without log handlers of its own, and without listening to commands over Redis."""
        self.register_birth()  # type: ignore[no-untyped-call]
        self.set_state(WorkerStatus.STARTED)

    def unsubscribe(self) -> None:
        """Not subscribed to anything."""

    def procline(self, message: str) -> None:
        """The process keeps its name."""

    def _install_signal_handlers(self) -> None:
        """Whoever started this thread listens to signals."""

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Never: `handing_out` looks after what was lost."""
        return False


def connect_queue(redis_url: str, jobs_redis_url: str | None) -> redis.Redis:
    """A client for the queue: of its own URL, else another database of the streams' Redis."""
    client = streams.connect(jobs_redis_url or redis_url)
    if jobs_redis_url is None:
        options = client.connection_pool.connection_kwargs
        options["db"] = DATABASE if options.get("db", 0) != DATABASE else DATABASE + 1
    return client


def make_queue(client: redis.Redis) -> Queue:
    """The one queue that there is."""
    return Queue(NAME, connection=client, job_class=RunfoldJob, serializer=JSONSerializer)


def put(queue: Queue, job_id: UUID) -> None:
    """Append a job, unless it is waiting there already."""
    name = str(job_id)
    if name in queue.job_ids:
        return
    # Under a name that is known already RQ would keep what it remembers of the last time.
    queue.connection.delete(RunfoldJob.key_for(name))
    queue.enqueue_call(
        DO_JOB, args=(name,), job_id=name, timeout=-1, result_ttl=0, failure_ttl=3600
    )

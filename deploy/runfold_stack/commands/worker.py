"""`runfold worker`: fold events into the history and run jobs until stopped.

A child process runs the jobs, so that a rebuild does not slow down the fold.
"""

import logging
from argparse import Namespace
from contextlib import ExitStack
from typing import Final

from runfold_stack.endpoints import require_endpoints
from runfold_stack.errors import INTERRUPTED, OK, CommandFailed
from runfold_stack.options import option
from runfold_stack.processes.signals import StopRequests, start_thread
from runfold_stack.processes.supervisor import Child
from runfold_stack.settings import Settings
from runfold_stack.terminal.logging_setup import configure_logging
from runfold_storage.errors import DatabaseUnreachable
from runfold_storage.migrate import check_schema
from runfold_workers.consumer.worker import Worker, WorkerSettings
from runfold_workers.jobs.worker import JobWorker, JobWorkerSettings
from runfold_workers.metrics import Metrics, SpoolCollector, serve_metrics

from . import Context, command

STOP_S: Final = 20.0
FOLD, JOBS, ALL = "fold", "jobs", "all"

_log = logging.getLogger(__name__)


@command(
    option("--role", choices=(FOLD, JOBS, ALL), default=ALL, help="the worker's tasks (all)"),
    option("--metrics-port", type=int, help="for /metrics (RUNFOLD_METRICS_PORT); 0: a free one"),
)
def worker(arguments: Namespace, context: Context) -> int:
    """Any number of workers may run, on any machine; they divide the shards among themselves. On
    SIGTERM or Ctrl-C a worker commits its current batch and stops; a second signal ends it
    immediately, which loses nothing either. If Redis or PostgreSQL is unavailable, the worker
    waits.

    `--role fold` only folds; `--role jobs` only runs jobs: large deletions, background rebuilds and
    retention. The next worker resumes an interrupted job.
    """
    settings = context.settings
    configure_logging(settings.log_level)
    endpoints = require_endpoints(settings)
    redis_url, database_url = endpoints.redis_url, endpoints.database_url
    try:
        check_schema(database_url)
    except DatabaseUnreachable as error:
        _log.warning("PostgreSQL is unavailable, waiting for it", extra={"reason": str(error)})
    if arguments.role == JOBS:
        optional = (settings.jobs_redis_url, settings.archive_url)
        jobs_worker = JobWorker(JobWorkerSettings(redis_url, database_url, *optional))
        return _run_until_stopped(jobs_worker, None)
    folding = Worker(
        WorkerSettings(
            redis_url,
            database_url,
            shards=settings.shards,
            limits=settings.limits,
            redact_keys=settings.redact_keys,
            max_future_s=settings.max_future_s,
        )
    )
    port = settings.metrics_port if arguments.metrics_port is None else arguments.metrics_port
    jobs = Child("jobs", ["worker", "--role", JOBS], endpoints) if arguments.role == ALL else None
    with ExitStack() as exits:
        if port is not None:
            _serve_metrics(folding.metrics, settings, port, exits)
        return _run_until_stopped(folding, jobs)


def _run_until_stopped(running: Worker | JobWorker, child: Child | None) -> int:
    """Work in a thread, while the main thread waits for its end or a signal."""
    with StopRequests() as requests:
        work = start_thread(running.run)
        try:
            while not work.done() and requests.count < 2:
                if requests.count:
                    running.stop()
                    if child is not None:
                        child.ask_to_stop()
                elif child is not None:
                    child.restart_if_due()
                requests.wait(0.5)
            forced = not work.done()
        finally:
            if child is not None:
                child.stop(requests, max_requests=1, timeout_s=STOP_S)  # the next resumes its job
    if forced:
        return INTERRUPTED
    work.result()  # raises its error
    return OK


def _serve_metrics(metrics: Metrics, settings: Settings, port: int, exits: ExitStack) -> None:
    if settings.spool_dir is not None:
        metrics.registry.register(SpoolCollector(settings.spool_dir, settings.spool_bytes))
    try:
        url, stop = serve_metrics(metrics, settings.metrics_host, port)
    except (OSError, OverflowError) as error:
        where = f"on {settings.metrics_host} port {port}"
        problem = f"cannot serve metrics {where} ({getattr(error, 'strerror', None) or error})"
        remedy = "choose others with RUNFOLD_METRICS_HOST and RUNFOLD_METRICS_PORT"
        raise CommandFailed(f"{problem}: {remedy}") from error
    exits.callback(stop)
    _log.info("serving metrics", extra={"url": url})

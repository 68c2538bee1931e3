"""`runfold worker`: fold events into the history and run jobs until stopped.

A child process runs the jobs, so that a rebuild does not slow down the fold. It is started again
when it ends, and stopped together with the worker.
"""

import logging
import os
import threading
import time
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from typing import Final

from runfold_stack.endpoints import require_endpoints
from runfold_stack.exit_codes import INTERRUPTED, OK, CommandFailed
from runfold_stack.processes.signals import StopRequests
from runfold_stack.processes.supervisor import Child
from runfold_stack.servers.local_stack import Endpoints
from runfold_stack.settings import Settings
from runfold_stack.terminal.logging_setup import configure_logging
from runfold_storage.errors import DatabaseUnreachable
from runfold_storage.migrate import check_schema
from runfold_workers.consumer.worker import Worker, WorkerSettings
from runfold_workers.jobs.worker import JobWorker, JobWorkerSettings
from runfold_workers.metrics import Metrics, SpoolCollector, serve_metrics

from . import Context

STOP_S: Final = 20.0
FOLD, JOBS, ALL = "fold", "jobs", "all"

EPILOG = """\
Any number of workers may run, on any machine; they divide the shards among themselves. On SIGTERM
or Ctrl-C a worker commits its current batch and stops; a second signal ends it immediately, which
loses nothing either. If Redis or PostgreSQL is unavailable, the worker waits.

`--role fold` only folds; `--role jobs` only runs jobs: large deletions, background rebuilds and
retention. The next worker resumes an interrupted job.
"""
_log = logging.getLogger(__name__)


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--role", choices=(FOLD, JOBS, ALL), default=ALL, help="the worker's tasks (all)"
    )
    parser.add_argument(
        "--metrics-port",
        type=int,
        help="serve /metrics on this port (RUNFOLD_METRICS_PORT); 0: a free one",
    )


def run(arguments: Namespace, context: Context) -> int:
    """Work until stopped; exit code 130 if a second signal forces the end."""
    settings = context.settings
    configure_logging(settings.logging_level)
    endpoints = require_endpoints(settings)
    try:
        check_schema(endpoints.database_url)
    except DatabaseUnreachable as error:
        _log.warning("PostgreSQL is unavailable, waiting for it", extra={"reason": str(error)})
    if arguments.role == JOBS:
        return _run_jobs(endpoints, settings)
    worker = Worker(
        WorkerSettings(
            endpoints.redis_url,
            endpoints.database_url,
            shards=settings.shards,
            limits=settings.limits,
            redact_keys=settings.redact_keys,
            max_future_s=settings.max_future_s,
        )
    )
    port = settings.metrics_port if arguments.metrics_port is None else arguments.metrics_port
    jobs = _jobs_child(endpoints) if arguments.role == ALL else None
    with ExitStack() as exits:
        if port is not None:
            _serve_metrics(worker.metrics, settings, port, exits)
        return _run_until_stopped(worker, jobs)


def _run_jobs(endpoints: Endpoints, settings: Settings) -> int:
    worker = JobWorker(
        JobWorkerSettings(
            endpoints.redis_url,
            endpoints.database_url,
            settings.jobs_redis_url,
            settings.archive_url,
        )
    )
    return _run_until_stopped(worker, None)


def _jobs_child(endpoints: Endpoints) -> Child:
    return Child(
        "jobs",
        ["worker", "--role", JOBS],
        {
            **os.environ,
            "RUNFOLD_REDIS_URL": endpoints.redis_url,
            "RUNFOLD_DATABASE_URL": endpoints.database_url,
        },
    )


def _run_until_stopped(worker: Worker | JobWorker, child: Child | None) -> int:
    """Work in a thread, while the main thread waits for its end or a signal."""
    failures: list[BaseException] = []
    with StopRequests() as requests:
        done = threading.Event()
        thread = threading.Thread(target=_work, args=(worker, failures, done), daemon=True)
        thread.start()
        try:
            while not done.is_set() and requests.count < 2:
                if requests.count:
                    worker.stop()
                    if child is not None:
                        child.ask_to_stop()
                elif child is not None:
                    child.restart_if_due()
                requests.wait(0.5)
            forced = not done.is_set()
        finally:
            if child is not None:
                _stop(child, requests)
    if forced:
        return INTERRUPTED
    if failures:
        raise failures[0]
    return OK


def _stop(child: Child, requests: StopRequests) -> None:
    """Wait for the child's end until a second request or a timeout, then kill it; jobs resume."""
    child.ask_to_stop()
    deadline = time.monotonic() + STOP_S
    while not child.has_stopped():
        if requests.count > 1 or time.monotonic() > deadline:
            child.kill()
        requests.wait(0.1)


def _serve_metrics(metrics: Metrics, settings: Settings, port: int, exits: ExitStack) -> None:
    if settings.spool_dir is not None:
        metrics.registry.register(SpoolCollector(settings.spool_dir, settings.spool_bytes))
    try:
        url, stop = serve_metrics(metrics, settings.metrics_host, port)
    except (OSError, OverflowError) as error:
        raise CommandFailed(
            f"cannot serve metrics on {settings.metrics_host} port {port} "
            f"({getattr(error, 'strerror', None) or error}): choose others with "
            "RUNFOLD_METRICS_HOST and RUNFOLD_METRICS_PORT"
        ) from error
    exits.callback(stop)
    _log.info("serving metrics", extra={"url": url})


def _work(worker: Worker | JobWorker, failures: list[BaseException], done: threading.Event) -> None:
    try:
        worker.run()
    except BaseException as error:
        failures.append(error)
    finally:
        done.set()

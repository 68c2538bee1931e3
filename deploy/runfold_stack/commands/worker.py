"""`runfold worker`: fold events into the history until told to stop."""

import logging
import threading
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from contextlib import ExitStack

from runfold_stack.commands import Context
from runfold_stack.logs import configure_logging
from runfold_stack.outcomes import INTERRUPTED, OK, CommandFailed
from runfold_stack.servers import require_endpoints
from runfold_stack.settings import Settings
from runfold_stack.stopping import StopRequests
from runfold_storage.errors import DatabaseUnreachable
from runfold_storage.migrate import check_schema
from runfold_workers.metrics import Metrics, serve_metrics
from runfold_workers.spool_metrics import SpoolCollector
from runfold_workers.worker import Worker, WorkerSettings

_EPILOG = """\
Any number of workers may run, on any machine: they share the shards among them. SIGTERM and
Ctrl-C let the batch at hand be committed; a second one does not wait for it, which loses nothing
either. When Redis or PostgreSQL is away the worker waits.
"""
_log = logging.getLogger(__name__)


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "--metrics-port",
        type=int,
        help="serve /metrics on this port (RUNFOLD_METRICS_PORT); 0: a free one",
    )


def run(arguments: Namespace, context: Context) -> int:
    """Work in a thread, and wait here for what ends it."""
    settings = context.settings
    configure_logging(settings.logging_level)
    endpoints = require_endpoints(settings)
    try:
        check_schema(endpoints.database_url)
    except DatabaseUnreachable as error:
        _log.warning("PostgreSQL is away, waiting for it", extra={"reason": str(error)})
    worker = Worker(
        WorkerSettings(
            endpoints.redis_url,
            endpoints.database_url,
            shards=settings.shards,
            limits=settings.limits,
        )
    )
    failures: list[BaseException] = []
    port = settings.metrics_port if arguments.metrics_port is None else arguments.metrics_port
    with ExitStack() as exits, StopRequests() as requests:
        if port is not None:
            _serve_metrics(worker.metrics, settings, port, exits)
        done = threading.Event()
        thread = threading.Thread(target=_work, args=(worker, failures, done), daemon=True)
        thread.start()
        while not done.is_set() and requests.count < 2:
            if requests.count:
                worker.stop()
            requests.wait(0.5)
        if not done.is_set():
            return INTERRUPTED
    if failures:
        raise failures[0]
    return OK


def _serve_metrics(metrics: Metrics, settings: Settings, port: int, exits: ExitStack) -> None:
    if settings.spool_dir is not None:
        metrics.collect(SpoolCollector(settings.spool_dir, settings.spool_bytes))
    try:
        url, stop = serve_metrics(metrics, settings.metrics_host, port)
    except (OSError, OverflowError) as error:
        raise CommandFailed(
            f"metrics cannot be served on {settings.metrics_host} port {port} "
            f"({getattr(error, 'strerror', None) or error}): choose others with "
            "RUNFOLD_METRICS_HOST and RUNFOLD_METRICS_PORT"
        ) from error
    exits.callback(stop)
    _log.info("serving metrics", extra={"url": url})


def _work(worker: Worker, failures: list[BaseException], done: threading.Event) -> None:
    try:
        worker.run()
    except BaseException as error:
        failures.append(error)
    finally:
        done.set()

"""`runfold api`: serve the history over HTTP until stopped."""

import logging
import signal
from argparse import Namespace

from runfold_api.server import serve
from runfold_api.settings import Settings as ApiSettings
from runfold_stack.endpoints import require_endpoints
from runfold_stack.options import HOST, PORT
from runfold_stack.processes.ports import choose_port
from runfold_stack.terminal.logging_setup import configure_logging

from . import Context, command

_log = logging.getLogger(__name__)


@command(HOST, PORT)
def api(arguments: Namespace, context: Context) -> None:
    """On SIGTERM or Ctrl-C, requests in progress are completed."""
    settings = context.settings
    configure_logging(settings.log_level)
    endpoints = require_endpoints(settings)
    host = arguments.host or settings.api_host
    port = choose_port(host, settings.api_port if arguments.port is None else arguments.port)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal that stopped it again when it has finished.
        signal.signal(number, lambda _number, _frame: None)
    serve(
        ApiSettings(
            redis_url=endpoints.redis_url,
            database_url=endpoints.database_url,
            shards=settings.shards,
            archive_url=settings.archive_url,
            delete_at_once=settings.delete_at_once,
            redact_keys=settings.redact_keys,
            max_future_s=settings.max_future_s,
            max_lag_s=settings.max_lag_s,
        ),
        host,
        port,
        on_listening=lambda url: _log.info("serving", extra={"url": url}),
    )

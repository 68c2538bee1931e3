"""`runfold api`: serve the history over HTTP until stopped."""

import logging
import signal
from argparse import ArgumentParser, Namespace
from types import FrameType

from runfold_api.server import serve
from runfold_api.settings import Settings as ApiSettings
from runfold_stack.endpoints import require_endpoints
from runfold_stack.exit_codes import OK
from runfold_stack.options.values import port_number
from runfold_stack.processes.ports import choose_port
from runfold_stack.terminal.logging_setup import configure_logging

from . import Context

_log = logging.getLogger(__name__)


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--host", help="address to listen on (RUNFOLD_API_HOST)")
    parser.add_argument("--port", type=port_number, help="port to listen on; 0: a free one")


def run(arguments: Namespace, context: Context) -> int:
    """Serve until SIGTERM or Ctrl-C; requests in progress are completed."""
    settings = context.settings
    configure_logging(settings.logging_level)
    endpoints = require_endpoints(settings)
    host = arguments.host or settings.api_host
    port = choose_port(host, settings.api_port if arguments.port is None else arguments.port)
    # uvicorn raises the signal that stopped it again when it has finished.
    signal.signal(signal.SIGTERM, _ignore)
    signal.signal(signal.SIGINT, _ignore)
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
    return OK


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing."""

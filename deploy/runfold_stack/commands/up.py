"""`runfold up`: run the whole stack on this machine until stopped.

It starts Redis, PostgreSQL, the schema, workers and the API in this order and stops them in the
reverse order, so that no process uses a server that has stopped. Processes and servers that end by
themselves are started again. If `up` is killed, workers and API end, too; the two servers keep
running with their data, and the next `up` adopts them or `down` stops them.
"""

import logging
import os
import shlex
import shutil
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from runfold_stack.exit_codes import INTERRUPTED, OK, CommandFailed
from runfold_stack.options.values import port_number
from runfold_stack.processes.ports import answers, choose_metrics_ports, choose_port, url_of
from runfold_stack.processes.readiness import workers_fold
from runfold_stack.processes.signals import StopRequests, sigterm_as_interrupt
from runfold_stack.processes.supervisor import Child, Server
from runfold_stack.processes.up_lock import UpLock, UpState, claim_up
from runfold_stack.servers.local_stack import Endpoints, LocalStack, open_stack
from runfold_stack.settings import DEFAULT_API_PORT, Settings
from runfold_stack.terminal.logging_setup import configure_logging
from runfold_storage.migrate import migrate

from . import Context

_READY_S: Final = 120.0
_STOP_S: Final = 60.0
_POLL_S: Final = 1.0
"""Adopted servers are no child processes, so no SIGCHLD reports their end."""
_MAX_RESTARTS: Final = 3
"""Of one process before the stack is ready; later restarts are unlimited."""

EPILOG = """\
examples:
  runfold up                                    everything embedded, data in RUNFOLD_HOME
  runfold up --port 9000 --host 0.0.0.0         let other machines use the API
  RUNFOLD_DATABASE_URL=postgresql://… runfold up    with your own PostgreSQL

Once the stack is ready, Ctrl-C or SIGTERM stops it in order, with exit code 0. An earlier or a
second request forces the end, with exit code 130. Events that arrive meanwhile are kept and folded
at the next start. `runfold down` stops the stack from another terminal.
"""
_log = logging.getLogger(__name__)


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--host", help="address that the API listens on (RUNFOLD_API_HOST)")
    parser.add_argument("--port", type=port_number, help="port of the API; 0: a free one")
    parser.add_argument("--json", action="store_true", help="print one line of JSON when ready")


def run(arguments: Namespace, context: Context) -> int:
    """Start, print the addresses, supervise, stop."""
    settings = context.settings
    configure_logging(settings.logging_level)
    host = arguments.host or settings.api_host
    port = choose_port(host, settings.api_port if arguments.port is None else arguments.port)
    if port != DEFAULT_API_PORT and arguments.port is None and settings.api_port is None:
        _log.warning(
            "port is taken, using another", extra={"port": DEFAULT_API_PORT, "instead": port}
        )
    with ExitStack() as exits:
        lock = exits.enter_context(claim_up(settings.home)) if _is_embedded(settings) else None
        with sigterm_as_interrupt():
            stack = _open(settings)
        with StopRequests() as requests:
            children: list[Child] = []
            servers = [Server(server) for server in stack.owned]
            try:
                migrate(stack.endpoints.database_url)
                environ = _environ(settings, stack.endpoints)
                ports = choose_metrics_ports(
                    settings.metrics_host, settings.metrics_port, settings.workers
                )
                children += [
                    Child(
                        f"worker {number}",
                        ["worker", "--role", "fold", "--metrics-port", str(metrics_port)],
                        environ,
                    )
                    for number, metrics_port in enumerate(ports, 1)
                ]
                children.append(Child("jobs", ["worker", "--role", "jobs"], environ))
                state = UpState(
                    os.getpid(),
                    url_of(host, port),
                    tuple(f"{url_of(settings.metrics_host, each)}/metrics" for each in ports),
                )
                api = ["api", "--host", host, "--port", str(port)]
                children.append(Child("api", api, environ))
                if _await_ready(children, stack.endpoints, url_of(host, port), requests):
                    _announce(context, stack, state, lock)
                    _supervise([*children, *servers], requests)
            finally:
                try:
                    forced = _stop(children, requests)
                finally:
                    for server in servers:
                        server.await_start()
                    stack.stop()
                _log.info("stopped")
    return INTERRUPTED if forced else OK


def _is_embedded(settings: Settings) -> bool:
    return settings.redis_url is None or settings.database_url is None


def _open(settings: Settings) -> LocalStack:
    return open_stack(
        settings.home,
        redis_url=settings.redis_url,
        database_url=settings.database_url,
        adopt=True,  # the directory's lock is held, so no other `up` supervises them
    )


def _environ(settings: Settings, endpoints: Endpoints) -> dict[str, str]:
    """Return the children's environment, which hides passwords in URLs from other users."""
    return {
        **os.environ,
        "RUNFOLD_REDIS_URL": endpoints.redis_url,
        "RUNFOLD_DATABASE_URL": endpoints.database_url,
        "RUNFOLD_LOG_LEVEL": settings.log_level,
    }


def _await_ready(
    children: Sequence[Child], endpoints: Endpoints, api_url: str, requests: StopRequests
) -> bool:
    """Wait until the stack is ready; False after a stop request; raise `CommandFailed` if not."""
    deadline = time.monotonic() + _READY_S
    while not requests.count:
        for child in children:
            child.restart_if_due()
            if child.restarts > _MAX_RESTARTS:
                raise CommandFailed(f"{child.name} does not start: see its messages above")
        if answers(f"{api_url}/readyz") and workers_fold(endpoints.database_url):
            return True
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"not ready after {_READY_S:g} s: see the messages above, and `runfold doctor`"
            )
        requests.wait(0.1)
    return False


def _announce(context: Context, stack: LocalStack, state: UpState, lock: UpLock | None) -> None:
    endpoints, home, api_url = stack.endpoints, context.settings.home, state.api_url
    runfold = "runfold" if shutil.which("runfold") else shlex.quote(sys.argv[0])
    if lock is not None:
        lock.write(state)
    if context.output.is_json:
        context.output.json(
            {
                "api_url": api_url,
                "redis_url": endpoints.redis_url,
                "database_url": endpoints.database_url,
                "data_dir": str(home),
                "pid": state.pid,
                "metrics_urls": [f"{api_url}/metrics", *state.metrics_urls],
            },
            on_one_line=True,
        )
        return
    context.output.line(
        f"Runfold is up.\n"
        f"  API             {api_url}\n"
        f"  for a runner    export RUNFOLD_REDIS_URL='{endpoints.redis_url}'\n"
        f"  for SQL         {endpoints.database_url}\n"
        f"  metrics         {api_url}/metrics\n"
        + "".join(f"                  {url}\n" for url in state.metrics_urls)
        + f"  data directory  {home if lock is not None else '(none: both servers are external)'}\n"
        f"  try             {runfold} exec -- echo hello\n"
        f"                  {runfold} runs\n"
        f"  stop            Ctrl-C here, or `{runfold} down`"
    )


def _supervise(processes: Sequence[Child | Server], requests: StopRequests) -> None:
    while not requests.count:
        for each in processes:
            each.restart_if_due()
        pauses = [pause for each in processes if (pause := each.due_in_s()) is not None]
        requests.wait(min(pauses, default=_POLL_S))


def _stop(children: Sequence[Child], requests: StopRequests) -> bool:
    """Stop the API first, then the workers; return whether the user forced the end."""
    requested = max(requests.count, 1)
    _log.info("stopping")
    for child in reversed(children):
        child.ask_to_stop()
        deadline = time.monotonic() + _STOP_S
        while not child.has_stopped():
            if requests.count > requested or time.monotonic() > deadline:
                _log.warning("not waiting any longer", extra={"child": child.name})
                child.kill()
            requests.wait(0.1)
    return requests.count > requested

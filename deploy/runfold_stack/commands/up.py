"""`runfold up`: the whole stack, on this machine, until told to stop.

Order of starting: Redis, PostgreSQL, schema, workers, API. Stopped in the opposite one, so that
nothing is asked of a server that is gone. What ends by itself is started again, servers too.
Killed halfway, workers and API end too; the two servers go on, keep what they have, and are adopted
by the next `up` or stopped by `down`.
"""

import logging
import os
import shlex
import shutil
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
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
_LOOK_EVERY_S: Final = 1.0
"""Whether a server is gone: those of a predecessor do not tell by SIGCHLD."""
_MOST_RESTARTS: Final = 3
"""Of one process before all is ready; later ones are repeated for ever."""

_EPILOG = """\
examples:
  runfold up                                    everything embedded, data in RUNFOLD_HOME
  runfold up --port 9000 --host 0.0.0.0         let other machines use the API
  RUNFOLD_DATABASE_URL=postgresql://… runfold up    with a PostgreSQL of your own

Once it is up, Ctrl-C or SIGTERM stops all of it in order and ends with 0; before that, or a second
time, with 130. Events that come meanwhile are kept, and folded next time. `runfold down` stops it
from elsewhere.
"""
_log = logging.getLogger(__name__)


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("--host", help="address that the API listens on (RUNFOLD_API_HOST)")
    parser.add_argument("--port", type=port_number, help="port of the API; 0: a free one")
    parser.add_argument("--json", action="store_true", help="print one line of JSON, once ready")


def run(arguments: Namespace, context: Context) -> int:
    """Start, say where everything is, wait, stop."""
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
                        ["worker", "--role", "fold", "--metrics-port", str(its)],
                        environ,
                    )
                    for number, its in enumerate(ports, 1)
                ]
                children.append(Child("jobs", ["worker", "--role", "jobs"], environ))
                state = UpState(
                    os.getpid(),
                    url_of(host, port),
                    tuple(f"{url_of(settings.metrics_host, its)}/metrics" for its in ports),
                )
                api = ["api", "--host", host, "--port", str(port)]
                children.append(Child("api", api, environ))
                if _await_ready(children, stack.endpoints, url_of(host, port), requests):
                    _announce(context, stack, state, lock)
                    _tend([*children, *servers], requests)
            finally:
                try:
                    forced = _stop(children, requests)
                finally:
                    for server in servers:
                        server.settle()
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
        adopt=True,  # we hold the directory's lock: nobody else looks after them
    )


def _environ(settings: Settings, endpoints: Endpoints) -> dict[str, str]:
    """For the children: by the environment, where URLs with passwords are not seen by others."""
    return {
        **os.environ,
        "RUNFOLD_REDIS_URL": endpoints.redis_url,
        "RUNFOLD_DATABASE_URL": endpoints.database_url,
        "RUNFOLD_LOG_LEVEL": settings.log_level,
    }


def _await_ready(
    children: Sequence[Child], endpoints: Endpoints, api_url: str, requests: StopRequests
) -> bool:
    """Whether all is well before somebody asked to stop; raises `CommandFailed` if it is not."""
    deadline = time.monotonic() + _READY_S
    while not requests.count:
        for child in children:
            child.tend()
            if child.restarts > _MOST_RESTARTS:
                raise CommandFailed(f"{child.name} does not start: its messages are above")
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
        lock.tell(state)
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
        + f"  data directory  {home if lock is not None else '(both servers are yours)'}\n"
        f"  try             {runfold} exec -- echo hello\n"
        f"                  {runfold} runs\n"
        f"  stop            Ctrl-C here, or `{runfold} down`"
    )


def _tend(kept: Sequence[Child | Server], requests: StopRequests) -> None:
    while not requests.count:
        for each in kept:
            each.tend()
        pauses = [pause for each in kept if (pause := each.due_in_s()) is not None]
        requests.wait(min(pauses, default=_LOOK_EVERY_S))


def _stop(children: Sequence[Child], requests: StopRequests) -> bool:
    """API first, then workers; whether it had to be forced."""
    asked = max(requests.count, 1)
    _log.info("stopping")
    for child in reversed(children):
        child.ask_to_stop()
        deadline = time.monotonic() + _STOP_S
        while not child.has_stopped():
            if requests.count > asked or time.monotonic() > deadline:
                _log.warning("not waiting any longer", extra={"child": child.name})
                child.kill()
            requests.wait(0.1)
    return requests.count > asked

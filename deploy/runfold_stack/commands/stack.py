"""`runfold up` and `runfold down`: run the whole stack on this machine until stopped.

`up` starts Redis, PostgreSQL, the schema, workers and the API in this order and stops them in the
reverse order, so that no process uses a server that has stopped. If `up` is killed, workers and API
end, too; the two servers keep running, and the next `up` adopts them or `down` stops them.
"""

import logging
import os
import shlex
import shutil
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

import psycopg

from runfold_stack.errors import INTERRUPTED, OK, CommandFailed
from runfold_stack.options import HOST, JSON, PORT, option
from runfold_stack.processes.ports import answers, choose_metrics_ports, choose_port, url_of
from runfold_stack.processes.signals import StopRequests, sigterm_as_interrupt
from runfold_stack.processes.supervisor import Child, Server
from runfold_stack.processes.up_lock import UpState, claim_up, find_up
from runfold_stack.servers.local_stack import Endpoints, open_stack, stop_running
from runfold_stack.settings import DEFAULT_API_PORT
from runfold_stack.terminal.logging_setup import configure_logging
from runfold_storage.errors import DatabaseUnreachable

from . import Context, command

_READY_S: Final = 120.0
_STOP_S: Final = 60.0
_DOWN_S: Final = 120.0
_POLL_S: Final = 1.0
"""Adopted servers are no child processes, so no SIGCHLD reports their end."""
_MAX_RESTARTS: Final = 3
"""Of one process before the stack is ready; later restarts are unlimited."""

_log = logging.getLogger(__name__)


@command(
    HOST,
    PORT,
    option("--json", action="store_true", help="print one line of JSON when ready"),
)
def up(arguments: Namespace, context: Context) -> int:
    """examples:
      runfold up                                    everything embedded, data in RUNFOLD_HOME
      runfold up --port 9000 --host 0.0.0.0         let other machines use the API
      RUNFOLD_DATABASE_URL=postgresql://… runfold up    with your own PostgreSQL

    Once the stack is ready, Ctrl-C or SIGTERM stops it in order, with exit code 0. An earlier or a
    second request forces the end, with exit code 130. Events that arrive meanwhile are kept and
    folded at the next start. `runfold down` stops the stack from another terminal.
    """
    from runfold_storage.migrate import migrate  # slow, and `down` does not need it

    settings = context.settings
    configure_logging(settings.log_level)
    host = arguments.host or settings.api_host
    port = choose_port(host, settings.api_port if arguments.port is None else arguments.port)
    if port != DEFAULT_API_PORT and arguments.port is None and settings.api_port is None:
        fields = {"port": DEFAULT_API_PORT, "instead": port}
        _log.warning("port is taken, using another", extra=fields)
    is_embedded = settings.redis_url is None or settings.database_url is None
    metrics_host, api_url = settings.metrics_host, url_of(host, port)
    with ExitStack() as exits:
        publish = exits.enter_context(claim_up(settings.home)) if is_embedded else None
        with sigterm_as_interrupt():
            stack = open_stack(
                settings.home,
                redis_url=settings.redis_url,
                database_url=settings.database_url,
                adopt=True,  # the directory's lock is held, so no other `up` supervises them
            )
        with StopRequests() as requests:
            children: list[Child] = []
            servers = [Server(server) for server in stack.owned]
            try:
                migrate(stack.endpoints.database_url)
                ports = choose_metrics_ports(metrics_host, settings.metrics_port, settings.workers)
                programs = {
                    f"worker {number}": ["worker", "--role", "fold", "--metrics-port", str(each)]
                    for number, each in enumerate(ports, 1)
                }
                programs["jobs"] = ["worker", "--role", "jobs"]
                programs["api"] = ["api", "--host", host, "--port", str(port)]
                children += [
                    Child(name, words, stack.endpoints) for name, words in programs.items()
                ]
                metrics_urls = tuple(f"{url_of(metrics_host, each)}/metrics" for each in ports)
                state = UpState(os.getpid(), api_url, metrics_urls)
                if _await_ready(children, stack.endpoints, api_url, requests):
                    folder = "(none: both servers are external)"
                    if publish is not None:
                        publish(state)
                        folder = str(settings.home)
                    _announce(context, stack.endpoints, state, folder)
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
        if answers(f"{api_url}/readyz") and _workers_fold(endpoints.database_url):
            return True
        if time.monotonic() > deadline:
            messages = "see the messages above, and `runfold doctor`"
            raise CommandFailed(f"not ready after {_READY_S:g} s: {messages}")
        requests.wait(0.1)
    return False


def _workers_fold(database_url: str) -> bool:
    """Return whether every shard has a worker; False while the database does not answer."""
    from runfold_storage.checkpoints.leases import count_leases  # slow, as is SQLAlchemy
    from runfold_storage.checkpoints.positions import count_shards
    from runfold_storage.postgres.connections import connect

    try:
        with connect(database_url, autocommit=True) as connection:
            shards = count_shards(connection)
            return 0 < shards == sum(count_leases(connection).values())
    except (DatabaseUnreachable, psycopg.Error):
        return False


def _announce(context: Context, endpoints: Endpoints, state: UpState, folder: str) -> None:
    api_url, metrics_urls = state.api_url, [f"{state.api_url}/metrics", *state.metrics_urls]
    if context.output.is_json:
        document = {
            "api_url": api_url,
            "redis_url": endpoints.redis_url,
            "database_url": endpoints.database_url,
            "data_dir": str(context.settings.home),
            "pid": state.pid,
            "metrics_urls": metrics_urls,
        }
        context.output.json(document, on_one_line=True)
        return
    runfold = "runfold" if shutil.which("runfold") else shlex.quote(sys.argv[0])
    urls = "\n                  ".join(metrics_urls)
    context.output.line(
        f"Runfold is up.\n"
        f"  API             {api_url}\n"
        f"  for a runner    export RUNFOLD_REDIS_URL='{endpoints.redis_url}'\n"
        f"  for SQL         {endpoints.database_url}\n"
        f"  metrics         {urls}\n"
        f"  data directory  {folder}\n"
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
        child.stop(requests, max_requests=requested, timeout_s=_STOP_S)
    return requests.count > requested


@command(JSON)
def down(_arguments: Namespace, context: Context) -> None:
    """Stops `up` and waits for its end; then stops servers that run without one."""
    home = context.settings.home
    stopped = []
    state = find_up(home)
    if state is not None:
        _stop_up(state.pid)
        deadline = time.monotonic() + _DOWN_S
        while find_up(home) is not None:
            if time.monotonic() > deadline:
                where = f"`runfold up` (pid {state.pid})"
                raise CommandFailed(f"{where} does not stop: check its log, then end it by its pid")
            time.sleep(0.05)
        stopped.append("up")
    stopped += stop_running(home)
    text = f"stopped: {', '.join(stopped)}" if stopped else f"nothing runs in {home}"
    context.output.result({"stopped": stopped}, text)


def _stop_up(pid: int) -> None:
    try:
        if pid:
            os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError:
        message = f"`runfold up` (pid {pid}) belongs to another user: stop it as that user"
        raise CommandFailed(message) from None

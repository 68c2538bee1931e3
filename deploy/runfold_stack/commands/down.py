"""`runfold down`: stop `runfold up`, and the servers that a killed `up` has left running."""

import os
import signal
import time
from argparse import ArgumentParser, Namespace
from typing import Final

from runfold_stack.exit_codes import OK, CommandFailed
from runfold_stack.processes.up_lock import find_up
from runfold_stack.servers.local_stack import stop_running

from . import Context

_TIMEOUT_S: Final = 120.0
_POLL_S: Final = 0.05


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(_arguments: Namespace, context: Context) -> int:
    """Stop `up` and wait for its end; then stop servers that run without one."""
    home = context.settings.home
    stopped = []
    state = find_up(home)
    if state is not None:
        _stop_up(state.pid)
        deadline = time.monotonic() + _TIMEOUT_S
        while find_up(home) is not None:
            if time.monotonic() > deadline:
                raise CommandFailed(
                    f"`runfold up` (pid {state.pid}) does not stop: check its log, "
                    "then end it by its pid"
                )
            time.sleep(_POLL_S)
        stopped.append("up")
    stopped += stop_running(home)
    text = f"stopped: {', '.join(stopped)}" if stopped else f"nothing runs in {home}"
    context.output.result({"stopped": stopped}, text)
    return OK


def _stop_up(pid: int) -> None:
    try:
        if pid:
            os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError:
        raise CommandFailed(
            f"`runfold up` (pid {pid}) belongs to another user: stop it as that user"
        ) from None

"""`runfold down`: stop what `up` started, and what a killed one left behind."""

import os
import signal
import time
from argparse import ArgumentParser, Namespace
from typing import Final

from runfold_stack.exit_codes import OK, CommandFailed
from runfold_stack.processes.up_lock import find_up
from runfold_stack.servers.local_stack import stop_running

from . import Context

_PATIENCE_S: Final = 120.0
_POLL_S: Final = 0.05


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(_arguments: Namespace, context: Context) -> int:
    """Ask `up` to stop, wait for it, then stop servers that run without one."""
    home = context.settings.home
    stopped = []
    state = find_up(home)
    if state is not None:
        _stop_up(state.pid)
        deadline = time.monotonic() + _PATIENCE_S
        while find_up(home) is not None:
            if time.monotonic() > deadline:
                raise CommandFailed(
                    f"`runfold up` (pid {state.pid}) does not stop: look at its log, "
                    "then end it by its pid"
                )
            time.sleep(_POLL_S)
        stopped.append("up")
    stopped += stop_running(home)
    if context.output.is_json:
        context.output.json({"stopped": stopped})
    elif stopped:
        context.output.line(f"stopped: {', '.join(stopped)}")
    else:
        context.output.line(f"nothing runs in {home}")
    return OK


def _stop_up(pid: int) -> None:
    try:
        if pid:
            os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError:
        raise CommandFailed(
            f"`runfold up` (pid {pid}) belongs to somebody else: stop it as that user"
        ) from None

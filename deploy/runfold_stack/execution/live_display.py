"""`exec --watch`: a live display of the run in place of the command's own output.

A separate process draws it, so that a slow terminal never delays the recording. It ignores Ctrl-C,
which is meant for the command, and so can show how the command ended.
"""

import os
import signal
import subprocess
import sys
from typing import Final

from runfold_stack.processes.ports import answers
from runfold_stack.processes.up_lock import api_address
from runfold_stack.settings import Settings

LAST_FRAME_S: Final = 10.0
_PROBE_TIMEOUT_S: Final = 2.0


class LiveDisplay:
    """Show one run until `close`."""

    def __init__(self, run: str, api: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runfold_stack.cli", "watch", "--wait", "--", run],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "RUNFOLD_API_URL": api},
            preexec_fn=_ignore_keyboard_signals,  # noqa: PLW1509, no thread has been started yet
        )

    def close(self) -> None:
        """Wait until the display has shown the run's end, at most `LAST_FRAME_S` seconds."""
        try:
            self._process.wait(LAST_FRAME_S)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait()


def find_api(settings: Settings) -> str | None:
    """Return the URL of the API; None if it does not answer."""
    api = api_address(settings)
    return api if answers(f"{api}/readyz", _PROBE_TIMEOUT_S) else None


def _ignore_keyboard_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)

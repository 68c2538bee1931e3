"""`exec --watch`: the run as a picture in place of the command's own output.

A process of its own shows it, so that recording is never held up by a slow terminal. It does not
hear Ctrl-C, which is for the command, and shows how that ended.
"""

import os
import signal
import subprocess
import sys
from typing import Final

from runfold_stack.endpoints import api_address
from runfold_stack.processes.ports import answers
from runfold_stack.settings import Settings

LAST_PICTURE_S: Final = 10.0
_ASK_S: Final = 2.0


class LiveDisplay:
    """Shows one run until `close`."""

    def __init__(self, run: str, api: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runfold_stack.cli", "watch", "--wait", "--", run],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "RUNFOLD_API_URL": api},
            preexec_fn=_deaf,  # noqa: PLW1509, no thread has been started yet
        )

    def close(self) -> None:
        """Let it show the end, for as long as that may take."""
        try:
            self._process.wait(LAST_PICTURE_S)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait()


def find_api(settings: Settings) -> str | None:
    """The API, if it is there."""
    api = api_address(settings)
    return api if answers(f"{api}/readyz", _ASK_S) else None


def _deaf() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)

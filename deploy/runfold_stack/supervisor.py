"""The processes that `runfold up` keeps running.

Each leads a session of its own, so that a Ctrl-C reaches only their supervisor, which stops them
in order; and each is sent SIGTERM by the kernel when the supervisor dies (Linux). One that ends
is started again, after a pause that doubles while it keeps ending soon.
"""

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from runfold_stack.privileges import command_as

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0
"""After this long a process counts as well, and the next pause is the first again."""

_log = logging.getLogger(__name__)


class Child:
    """One process, started again whenever it ends. Used by the thread that stays: the main one."""

    def __init__(self, name: str, words: Sequence[str], environ: Mapping[str, str]) -> None:
        self.name = name
        self.restarts = 0
        self._command = command_as(
            None,
            # -P: a file in the current directory must not be taken for a module of ours.
            [sys.executable, "-P", "-m", "runfold_stack.cli", *words],
            death_signal=signal.SIGTERM,
        )
        self._environ = dict(environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._start_at = 0.0

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return None if self._process is None else self._process.pid

    def tend(self) -> None:
        """Start it if it does not run and its pause is over."""
        if self._process is not None:
            status = self._process.poll()
            if status is None:
                return
            self._ended(status)
        if time.monotonic() >= self._start_at:
            self._started = time.monotonic()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                env=self._environ,
                start_new_session=True,
            )
            _log.info("started", extra={"child": self.name, "pid": self._process.pid})

    def due_in_s(self) -> float | None:
        """How long until `tend` would start it; None while it runs."""
        return None if self._process is not None else max(0.0, self._start_at - time.monotonic())

    def ask_to_stop(self) -> None:
        """SIGTERM: it finishes what it is at."""
        if self._process is not None:
            self._process.terminate()

    def has_stopped(self) -> bool:
        """Whether it is gone."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL, and wait."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()

    def _ended(self, status: int) -> None:
        self._process = None
        self.restarts += 1
        if time.monotonic() - self._started > STEADY_S:
            self._pause_s = FIRST_PAUSE_S
        _log.error(
            "ended by itself, starting it again",
            extra={
                "child": self.name,
                "how": f"exit code {status}" if status >= 0 else f"signal {-status}",
                "pause_s": self._pause_s,
            },
        )
        self._start_at = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

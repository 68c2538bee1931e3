"""The processes and servers that `runfold up` keeps running.

Each child process leads a session of its own, so that a Ctrl-C reaches only the supervisor, which
stops the children in order. The kernel sends SIGTERM to each child when the supervisor dies
(Linux). What ends is started again, after a pause that grows while it keeps ending soon.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

from runfold.delivery.stream_sender import Backoff
from runfold_stack.errors import StackError
from runfold_stack.servers.embedded_server import EmbeddedServer
from runfold_stack.servers.local_stack import Endpoints
from runfold_stack.servers.privileges import command_as

from .signals import StopRequests

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0
"""A process that has run for this long counts as healthy: the next pause is the first again."""

_log = logging.getLogger(__name__)


class _RestartPause(Backoff):
    """The pause before the next start, which a healthy run resets."""

    _started = 0.0

    def __init__(self) -> None:
        super().__init__(FIRST_PAUSE_S, LONGEST_PAUSE_S)

    def started(self) -> None:
        self._started = time.monotonic()

    def ended(self) -> float:
        """Note the end of the process; return the seconds until it may be started again."""
        if time.monotonic() - self._started > STEADY_S:
            self.reset()
        self.record_failure()
        return round(self.remaining_s(), 3)


class Child:
    """One process, started again whenever it ends. For the main thread only."""

    def __init__(self, name: str, words: Sequence[str], endpoints: Endpoints) -> None:
        self.name = name
        self.restarts = 0
        self._command = command_as(
            None,
            # -P: a file in the current directory must not shadow a module.
            [sys.executable, "-P", "-m", "runfold_stack.cli", *words],
            death_signal=signal.SIGTERM,
        )
        self._environ = {  # hides passwords in URLs from other users
            **os.environ,
            "RUNFOLD_REDIS_URL": endpoints.redis_url,
            "RUNFOLD_DATABASE_URL": endpoints.database_url,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._pause = _RestartPause()

    def restart_if_due(self) -> None:
        """Start the process if it does not run and its pause is over."""
        if self._process is not None:
            status = self._process.poll()
            if status is None:
                return
            self._process = None
            self.restarts += 1
            how = f"exit code {status}" if status >= 0 else f"signal {-status}"
            fields = {"child": self.name, "how": how, "pause_s": self._pause.ended()}
            _log.error("child ended, restarting it", extra=fields)
        if not self._pause.remaining_s():
            self._pause.started()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                env=self._environ,
                start_new_session=True,
            )
            _log.info("started", extra={"child": self.name, "pid": self._process.pid})

    def due_in_s(self) -> float | None:
        """Return the seconds until the process may be started; None while it runs."""
        return None if self._process is not None else self._pause.remaining_s()

    def ask_to_stop(self) -> None:
        """Send SIGTERM: the process completes the work at hand."""
        if self._process is not None:
            self._process.terminate()

    def stop(self, requests: StopRequests, *, max_requests: int, timeout_s: float) -> None:
        """Wait for its end after SIGTERM; kill it after too many requests or the timeout."""
        self.ask_to_stop()
        deadline = time.monotonic() + timeout_s
        while self._process is not None and self._process.poll() is None:
            if requests.count > max_requests or time.monotonic() > deadline:
                _log.warning("not waiting any longer", extra={"child": self.name})
                self._process.kill()
                self._process.wait()
            requests.wait(0.1)


class Server:
    """A running server, started again by a thread, because it may take long to recover."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.name = server.name
        self._server = server
        self._pause = _RestartPause()
        self._is_up = True
        self._starting: threading.Thread | None = None

    def restart_if_due(self) -> None:
        if self._starting is not None and self._starting.is_alive():
            return
        self._starting = None
        if self._server.pid is not None:
            return
        if self._is_up:
            self._is_up = False
            fields = {"server": self.name, "pause_s": self._pause.ended()}
            _log.error("server ended, restarting it", extra=fields)
        if not self._pause.remaining_s():
            self._starting = threading.Thread(target=self._start, daemon=True)
            self._starting.start()

    def due_in_s(self) -> float | None:
        """Return the seconds until the server may be started; None while it runs or starts."""
        is_busy = self._is_up or self._starting is not None
        return None if is_busy else self._pause.remaining_s()

    def await_start(self) -> None:
        """Wait for a start in progress, so that the server can be stopped."""
        if self._starting is not None:
            self._starting.join()

    def _start(self) -> None:
        try:
            self._server.start()
        except StackError as error:
            fields = {"server": self.name, "pause_s": self._pause.ended()}
            _log.error("server did not start: %s", error, extra=fields)
            return
        self._pause.started()
        self._is_up = True
        _log.info("server runs again", extra={"server": self.name, "pid": self._server.pid})

"""The processes and servers that `runfold up` keeps running.

Each process leads a session of its own, so that a Ctrl-C reaches only their supervisor, which stops
them in order; and each is sent SIGTERM by the kernel when the supervisor dies (Linux). One that
ends is started again, after a pause that doubles while it keeps ending soon. So is a server, but it
goes on when the supervisor dies.
"""

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from runfold_stack.errors import StackError
from runfold_stack.servers.postgres_server import PostgresServer
from runfold_stack.servers.privileges import command_as
from runfold_stack.servers.redis_server import RedisServer

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0
"""After this long a process counts as well, and the next pause is the first again."""

_log = logging.getLogger(__name__)


class Backoff:
    """How long to wait before the next start, and since when it has been running."""

    def __init__(self) -> None:
        self.start_at = 0.0
        self._next_s = FIRST_PAUSE_S
        self._started = 0.0

    def started(self) -> None:
        """It runs from now on."""
        self._started = time.monotonic()

    def ended(self) -> float:
        """It runs no more; returns the seconds until it may be started again."""
        if time.monotonic() - self._started > STEADY_S:
            self._next_s = FIRST_PAUSE_S
        pause_s = self._next_s
        self.start_at = time.monotonic() + pause_s
        self._next_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return pause_s

    @property
    def left_s(self) -> float:
        """0 when it may be started."""
        return max(0.0, self.start_at - time.monotonic())


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
        self._pause = Backoff()

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
        if not self._pause.left_s:
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
        """How long until `tend` would start it; None while it runs."""
        return None if self._process is not None else self._pause.left_s

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
        _log.error(
            "ended by itself, starting it again",
            extra={
                "child": self.name,
                "how": f"exit code {status}" if status >= 0 else f"signal {-status}",
                "pause_s": self._pause.ended(),
            },
        )


class Server:
    """A server that runs already, started again whenever it is gone.

    That may take long, for it recovers first; so it is waited for in a thread.
    """

    def __init__(self, server: RedisServer | PostgresServer) -> None:
        self.name = server.data_dir.name
        self._server = server
        self._pause = Backoff()
        self._is_up = True
        self._starting: threading.Thread | None = None

    def tend(self) -> None:
        """Start it if it does not run and its pause is over."""
        if self._starting is not None:
            if self._starting.is_alive():
                return
            self._starting = None
        if self._server.pid is not None:
            return
        if self._is_up:
            self._is_up = False
            pause_s = self._pause.ended()
            _log.error(
                "server is gone, starting it again", extra={"server": self.name, "pause_s": pause_s}
            )
        if not self._pause.left_s:
            self._starting = threading.Thread(target=self._start, daemon=True)
            self._starting.start()

    def due_in_s(self) -> float | None:
        """How long until `tend` would start it; None while it runs or is being started."""
        if self._is_up or self._starting is not None:
            return None
        return self._pause.left_s

    def settle(self) -> None:
        """Wait until nothing is being started, so that it can be stopped."""
        if self._starting is not None:
            self._starting.join()

    def _start(self) -> None:
        try:
            self._server.start()
        except StackError as error:
            pause_s = self._pause.ended()
            _log.error(
                "server does not start: %s", error, extra={"server": self.name, "pause_s": pause_s}
            )
            return
        self._pause.started()
        self._is_up = True
        _log.info("server runs again", extra={"server": self.name, "pid": self._server.pid})

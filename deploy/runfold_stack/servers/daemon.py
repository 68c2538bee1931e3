"""One server process, tied to one folder by a lock.

Invariant: while a server, or a leftover child of one, lives, it holds the exclusive lock on
`server.lock` in its folder. It inherits the lock from the process that starts it, so the lock
outlives a starter that is killed, and the end of a server can be waited for. The file holds the
server's pid.

Servers lead a session of their own, so that a Ctrl-C in the terminal does not end them before the
workers, which still need them.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import ClassVar

from runfold_stack.errors import AlreadyRunningError, StackError, start_failure

from .lock_file import LockFile
from .owned_folder import Identity, open_file, open_folder

StopSteps = Sequence[tuple[signal.Signals, float]]
"""Signals in turn, each with the seconds to wait for the server's end."""

_LEFTOVERS_S = 10.0
_POLL_S = 0.01
_MAX_LOG_BYTES = 10 * 2**20

_logger = logging.getLogger(__name__)


class Daemon:
    """The process that serves one folder, started by this process or by another."""

    name: ClassVar[str]

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.log_path = data_dir / f"{self.name}.log"
        self._lock_file = LockFile(data_dir / "server.lock")
        self._child: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def __str__(self) -> str:
        return f"The {self.name} server in {self.data_dir}"

    @property
    def pid(self) -> int | None:
        """The server's pid, whichever process started it; None if it does not run."""
        if self._child_lives():
            assert self._child is not None
            return self._child.pid
        return self._locked_pid() or None

    def _claim(self, identity: Identity | None) -> AbstractContextManager[int]:
        """Hold the folder's lock; raise AlreadyRunningError if a server or a starter holds it."""
        return self._lock_file.claim(self._refuse, identity)

    def _spawn(self, lock: int, command: Sequence[str], owner: Identity | None) -> None:
        """Start the command in the background, with `lock` held and its output in the log."""
        with open(self._open_log(owner), "ab") as log:
            self._log_start = log.seek(0, os.SEEK_END)
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data_dir,
                env=environment(),
                pass_fds=(lock,),
                start_new_session=True,
            )
        os.pwrite(lock, str(self._child.pid).encode(), 0)

    def _await_ready(self, answers: Callable[[], bool], timeout_s: float) -> None:
        """Wait until the spawned server answers; raise StartFailedError if it does not."""
        assert self._child is not None
        deadline = time.monotonic() + timeout_s
        while not answers():
            if (status := self._child.poll()) is not None:
                self._child = None
                how = f"exit status {status}" if status >= 0 else f"signal {-status}"
                raise start_failure(f"{self} ended as it started ({how}).", self._log_tail())
            if time.monotonic() > deadline:
                raise start_failure(f"{self} did not answer for {timeout_s:g} s.", self._log_tail())
            time.sleep(_POLL_S)

    def _end(self, steps: StopSteps) -> None:
        """Send each signal in turn until the server and its children have ended."""
        for number, (step, wait_s) in enumerate(steps):
            pid = self.pid
            if pid is not None:
                if number:
                    _logger.warning(
                        "server did not stop, sending the next signal",
                        extra={"server": self.name, "pid": pid, "signal": step.name},
                    )
                self._signal(pid, step)
            if self._await_end(wait_s):
                return
        raise StackError(
            f"{self} (pid {self.pid}) does not stop. Look into {self.log_path}, then end it by its "
            "pid."
        )

    def _await_end(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        # Until no server runs, is being started, or has left children behind.
        while self._child_lives() or self._locked_pid() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        self._child = None
        return True

    def _refuse(self, waited_s: float, content: bytes) -> None:
        # A process that reads the pid holds the lock for an instant, and the children of a killed
        # server hold it until they notice its death: both are waited for.
        pid = _pid_in(content)
        if waited_s > 0.2 and (pid == 0 or _is_alive(pid)):
            raise AlreadyRunningError(
                f"A {self.name} server (pid {pid or 'not yet known'}) already serves "
                f"{self.data_dir}."
            )
        if waited_s > _LEFTOVERS_S:
            raise AlreadyRunningError(
                f"The {self.name} server (pid {pid}) has ended, but processes that it started "
                f"still use {self.data_dir}. Find them with `fuser {self._lock_file.path}`."
            )

    def _locked_pid(self) -> int | None:
        """Return the pid in the lock file, 0 if it is empty; None if no process holds the lock."""
        content = self._lock_file.read()
        return None if content is None else _pid_in(content)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        ours = self._child is not None and self._child.pid == pid
        if not ours and not self._holds_lock(pid):
            raise StackError(
                f"{self} runs, but the process with its pid {pid} is another one here: the server "
                "belongs to another container or user. Stop it there."
            )
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def _holds_lock(self, pid: int) -> bool:
        if not sys.platform.startswith("linux"):
            return True
        wanted = self._lock_file.path.lstat()
        try:
            files = list(Path(f"/proc/{pid}/fd").iterdir())
            return any(os.path.samestat(file.stat(), wanted) for file in files)
        except OSError:
            # It has just ended, which the lock will show, or belongs to another user.
            return False

    def _child_lives(self) -> bool:
        # Checked before the lock, because the folder may be deleted while the server runs.
        return self._child is not None and self._child.poll() is None

    def _open_log(self, owner: Identity | None) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with open_folder(self.data_dir) as folder:
            log = open_file(self.log_path, flags, folder, owner)
            if os.fstat(log).st_size <= _MAX_LOG_BYTES:
                return log
            os.close(log)
            old = self.log_path.with_suffix(".log.1")
            os.replace(self.log_path.name, old.name, src_dir_fd=folder, dst_dir_fd=folder)
            return open_file(self.log_path, flags, folder, owner)

    def _log_tail(self) -> str:
        with open_folder(self.data_dir) as folder:
            fd = open_file(self.log_path, os.O_RDONLY, folder)
        with open(fd, "rb") as log:
            log.seek(self._log_start)
            return log.read()[-8192:].decode(errors="replace")


def environment() -> dict[str, str]:
    """Return this process's environment without PostgreSQL's variables, and with LC_ALL=C."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C"}


def _pid_in(content: bytes) -> int:
    return int(content) if content.isdigit() else 0


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

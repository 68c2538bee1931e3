"""One server process, tied to one folder by a lock.

Invariant: while a server, or a leftover child of one, lives, it holds an exclusive flock on
`server.lock` in its folder. It inherits the lock from the process that starts it, so the lock
outlives a starter that is killed, and the kernel drops it with the server's last process: no pid
file can be stale, two starters cannot both win, and the end of a server can be waited for. The
file holds the server's pid, which is valid only while the lock is held.

Servers lead a session of their own, so that a Ctrl-C in the terminal does not end them before the
workers, which still need them.
"""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from runfold_stack.errors import AlreadyRunningError, StackError, start_failure

from .owned_folder import Identity, open_file, open_folder

StopSteps = Sequence[tuple[signal.Signals, float]]
"""Signals in turn, each with the seconds to wait for the server's end."""

_LEFTOVERS_S = 10.0
_POLL_S = 0.01
_MAX_LOG_BYTES = 10 * 2**20

_logger = logging.getLogger(__name__)


class Daemon:
    """The process that serves one folder, started by this process or by another."""

    def __init__(self, home: Path, name: str) -> None:
        self.home = home
        self.name = name
        self.log_path = home / f"{name}.log"
        self._lock_path = home / "server.lock"
        self._child: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The server's pid; None if none runs, or if it is only being started."""
        if self._child_lives():
            assert self._child is not None
            return self._child.pid
        return self._locked_pid() or None

    @property
    def is_locked(self) -> bool:
        """Whether a server runs, is being started, or has left children behind."""
        return self._child_lives() or self._locked_pid() is not None

    @contextmanager
    def claim(self, identity: Identity | None) -> Iterator[int]:
        """Hold the folder's lock; raise AlreadyRunningError if a server or a starter holds it."""
        with open_folder(self.home) as folder:
            lock = open_file(self._lock_path, os.O_RDWR | os.O_CREAT, folder, identity)
        try:
            self._lock(lock)
            os.truncate(lock, 0)
            yield lock
        finally:
            # A server that was started has its own copy of the lock.
            os.close(lock)

    def spawn(
        self, lock: int, command: Sequence[str], environ: Mapping[str, str], owner: Identity | None
    ) -> None:
        """Start the command in the background, with `lock` held and its output in the log."""
        with open(self._open_log(owner), "ab") as log:
            self._log_start = log.seek(0, os.SEEK_END)
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                env=dict(environ),
                pass_fds=(lock,),
                start_new_session=True,
            )
        os.pwrite(lock, str(self._child.pid).encode(), 0)

    def await_ready(self, answers: Callable[[], bool], timeout_s: float) -> None:
        """Wait until the spawned server answers; raise StartFailedError if it does not."""
        assert self._child is not None
        deadline = time.monotonic() + timeout_s
        while not answers():
            if (status := self._child.poll()) is not None:
                self._child = None
                how = f"exit status {status}" if status >= 0 else f"signal {-status}"
                raise start_failure(
                    f"The {self.name} server in {self.home} ended as it started ({how}).",
                    self._log_tail(),
                )
            if time.monotonic() > deadline:
                raise start_failure(
                    f"The {self.name} server in {self.home} did not answer for {timeout_s:g} s.",
                    self._log_tail(),
                )
            time.sleep(_POLL_S)

    def end(self, steps: StopSteps) -> None:
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
            f"The {self.name} server in {self.home} (pid {self.pid}) does not stop. "
            f"Look into {self.log_path}, then end it by its pid."
        )

    def _await_end(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.is_locked:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        self._child = None
        return True

    def _lock(self, lock: int) -> None:
        started = time.monotonic()
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited_s = time.monotonic() - started
                holder = _pid_in(lock)
                # A process that reads the pid holds the lock for an instant, and the children of
                # a killed server hold it until they notice its death: both are waited for.
                if waited_s > 0.2 and (holder == 0 or _is_alive(holder)):
                    raise AlreadyRunningError(
                        f"A {self.name} server (pid {holder or 'not yet known'}) already serves "
                        f"{self.home}."
                    ) from None
                if waited_s > _LEFTOVERS_S:
                    raise AlreadyRunningError(
                        f"The {self.name} server (pid {holder}) has ended, but processes that it "
                        f"started still use {self.home}. Find them with `fuser {self._lock_path}`."
                    ) from None
                time.sleep(_POLL_S)
            else:
                return

    def _locked_pid(self) -> int | None:
        """Return the pid in the lock file, 0 if it is empty; None if no process holds the lock."""
        try:
            with open_folder(self.home) as folder:
                lock = open_file(self._lock_path, os.O_RDONLY, folder)
        except (OSError, StackError):
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _pid_in(lock)
        else:
            return None
        finally:
            os.close(lock)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        ours = self._child is not None and self._child.pid == pid
        if not ours and not self._holds_lock(pid):
            raise StackError(
                f"The {self.name} server in {self.home} runs, but the process with its pid {pid} "
                "is another one here: the server belongs to another container or user. Stop it "
                "there."
            )
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return

    def _holds_lock(self, pid: int) -> bool:
        if not sys.platform.startswith("linux"):
            return True
        wanted = self._lock_path.lstat()
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
        with open_folder(self.home) as folder:
            log = open_file(self.log_path, flags, folder, owner)
            if os.fstat(log).st_size <= _MAX_LOG_BYTES:
                return log
            os.close(log)
            old = self.log_path.with_suffix(".log.1")
            os.replace(self.log_path.name, old.name, src_dir_fd=folder, dst_dir_fd=folder)
            return open_file(self.log_path, flags, folder, owner)

    def _log_tail(self) -> str:
        with open_folder(self.home) as folder:
            fd = open_file(self.log_path, os.O_RDONLY, folder)
        with open(fd, "rb") as log:
            log.seek(self._log_start)
            return log.read()[-8192:].decode(errors="replace")


def _pid_in(lock: int) -> int:
    """Return the pid in the lock file, 0 while it is unknown."""
    text = os.pread(lock, 20, 0)
    return int(text) if text.isdigit() else 0


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

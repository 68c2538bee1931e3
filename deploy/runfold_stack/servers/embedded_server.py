"""What the embedded PostgreSQL and Redis servers have in common: start, stop, kill, find again.

A server lives in one folder: its data, its log, its lock and its Unix socket. Any process that
knows the folder can find, stop or kill the server, whichever process started it.

Invariant: while a server, or a leftover child of one, lives, it holds the exclusive lock on
`server.lock` in its folder, which has its pid. It inherits the lock from the process that starts
it, so the lock outlives a starter that is killed. Servers lead a session of their own, so that a
Ctrl-C in the terminal does not end them before the workers, which still need them.

The path of the socket follows from the folder alone, so no state file can go stale. A socket's path
has room for about a hundred bytes, and URLs, libpq and configuration files quote differently. So if
the folder's name is long or unusual, the socket lies in a short private folder below `/tmp`, named
by a hash. It stays when the server stops, because another server may be starting in it.
"""

import hashlib
import logging
import os
import re
import stat
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from signal import Signals
from typing import ClassVar, Final, Self

from runfold_stack.errors import AlreadyRunningError, StackError, start_failure

from .binaries import Program
from .lock_file import LockFile
from .owned_folder import Identity, open_file, open_folder
from .privileges import command_as, environment, prepare_data_dir

StopSteps = Sequence[tuple[Signals, float]]
"""Signals in turn, each with the seconds to wait for the server's end."""

START_TIMEOUT_S: Final = 600.0
KILL: Final[StopSteps] = ((Signals.SIGKILL, 30.0),)
_LEFTOVERS_S: Final = 10.0
_POLL_S: Final = 0.01
_MAX_LOG_BYTES: Final = 10 * 2**20
# sun_path has 104 bytes on macOS, 108 on Linux, and ends with a NUL.
_MAX_SOCKET_BYTES: Final = 103
# libpq splits hosts at commas; other characters need quoting, differently in each place.
_PLAIN: Final = re.compile(r"[A-Za-z0-9/._-]+")
# Not TMPDIR: it differs between terminals, and on macOS it is long.
_SHORT_ROOT: Final = Path("/tmp")  # noqa: S108, the folder below is checked to be private

_logger = logging.getLogger(__name__)


class EmbeddedServer(ABC):
    """The server in the folder `data_dir`, which may run already.

    With `die_with_parent` the server ends when the thread that started it ends (Linux only):
    for tests.
    """

    name: ClassVar[str]
    _socket_name: ClassVar[str]
    _death_signal: ClassVar[Signals]
    _stop_steps: ClassVar[StopSteps]
    _abort_steps: ClassVar[StopSteps] = KILL
    """How to end a server that did not start as it should."""

    def __init__(
        self, data_dir: Path, *, binary: Path | None = None, die_with_parent: bool = False
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.log_path = self.data_dir / f"{self.name}.log"
        self._binary = binary
        self._dies_with_parent = die_with_parent
        self._lock_file = LockFile(self.data_dir / "server.lock")
        self._child: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def __str__(self) -> str:
        return f"The {self.name} server in {self.data_dir}"

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL for clients; it follows from the folder alone."""

    @property
    def pid(self) -> int | None:
        """The server's pid, whichever process started it; None if it does not run."""
        # Before the lock, because the folder may be deleted while the server runs.
        if self._child is not None and self._child.poll() is None:
            return self._child.pid
        return self._locked_pid() or None

    def start(self) -> None:
        """Start the server and wait until it answers; it may have much to load or to recover.

        Raise AlreadyRunningError if the folder is being served, and StartFailedError with the end
        of the server's log if the server gives up. A failed start leaves no process behind.
        """
        program = self._find_program()
        identity = prepare_data_dir(self.data_dir, program.path)
        with self._lock_file.claim(self._refuse, identity) as lock:
            self._claim_socket_folder(identity)
            command = command_as(
                identity,
                self._prepare(program.path, identity),
                death_signal=self._death_signal if self._dies_with_parent else None,
            )
            self._spawn(lock, command, identity)
        try:
            self._await_ready()
            self._finish_start()
        except BaseException:
            self._end(self._abort_steps)
            raise

    def stop(self) -> None:
        """End the server with all data on disk; do nothing if none runs."""
        self._end(self._stop_steps)

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL), and wait until it and its children end."""
        self._end(KILL)

    def answers(self) -> bool:
        """Return whether a server answers at `url`; False while it loads or recovers."""
        return self._has_private_socket() and self._ping()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def _find_program(self) -> Program: ...

    @abstractmethod
    def _prepare(self, program: Path, identity: Identity | None) -> list[str]:
        """Bring the folder's files into shape, under the lock, and return the command."""

    @abstractmethod
    def _ping(self) -> bool: ...

    def _finish_start(self) -> None:  # noqa: B027, not every server has something to complete
        """Complete what only a running server can do."""

    @property
    def _socket_folder(self) -> Path:
        own = self.data_dir.resolve()
        path = f"{own}/{self._socket_name}"
        if len(path.encode()) <= _MAX_SOCKET_BYTES and _PLAIN.fullmatch(path):
            return own
        digest = hashlib.sha256(os.fsencode(own)).hexdigest()[:16]
        return _SHORT_ROOT / f"runfold-{digest}"

    def _claim_socket_folder(self, identity: Identity | None) -> None:
        folder = self._socket_folder
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            if identity is not None:
                os.chown(folder, identity.uid, identity.gid, follow_symlinks=False)
        if not self._has_private_socket():
            raise StackError(
                f"{folder} is needed for a server's socket, but users other than the owner of "
                f"{self.data_dir} can enter it, or it is no folder. Find out what it is used for "
                "and remove it."
            )

    def _has_private_socket(self) -> bool:
        """Return whether only the data's owner (and root) can have put files beside the socket."""
        try:
            status = self._socket_folder.lstat()
            owner = self.data_dir.stat().st_uid
        except OSError:
            return False
        mode = stat.S_IMODE(status.st_mode)
        return stat.S_ISDIR(status.st_mode) and status.st_uid == owner and mode & 0o077 == 0

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

    def _await_ready(self) -> None:
        assert self._child is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            if (status := self._child.poll()) is not None:
                how = f"exit status {status}" if status >= 0 else f"signal {-status}"
                raise start_failure(f"{self} ended as it started ({how}).", self._log_tail())
            if time.monotonic() > deadline:
                how = f"did not answer for {START_TIMEOUT_S:g} s"
                raise start_failure(f"{self} {how}.", self._log_tail())
            time.sleep(_POLL_S)

    def _end(self, steps: StopSteps) -> None:
        """Send each signal in turn until the server and its children have ended."""
        for number, (step, wait_s) in enumerate(steps):
            pid = self.pid
            if pid is not None:
                if number:
                    fields = {"server": self.name, "pid": pid, "signal": step.name}
                    _logger.warning("server did not stop, sending the next signal", extra=fields)
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
        while self.pid is not None or self._locked_pid() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
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

    def _signal(self, pid: int, number: Signals) -> None:
        is_child = self._child is not None and self._child.pid == pid
        if not is_child and not self._holds_lock(pid):
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


def _pid_in(content: bytes) -> int:
    return int(content) if content.isdigit() else 0


def _is_alive(pid: int) -> bool:
    try:
        with suppress(PermissionError):  # it belongs to another user
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

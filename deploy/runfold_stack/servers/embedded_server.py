"""What the embedded PostgreSQL and Redis servers have in common: start, stop, kill, find again.

A server lives in one folder: its data, its log, its lock and its Unix socket. Any process that
knows the folder can find, stop or kill the server, whichever process started it (see `daemon`).

The path of the socket is a pure function of the folder: every process that knows the data directory
knows the address, and no state file can go stale. The socket lies in the server's own folder, which
only its owner can enter; there is no other access control. A socket's path has room for about a
hundred bytes, and URLs, libpq and configuration files quote differently. So if the folder's name is
long or unusual, the socket lies in a short private folder below `/tmp`, named by a hash. It stays
when the server stops, because another server may be starting in it.
"""

import hashlib
import os
import re
import stat
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from signal import Signals
from typing import ClassVar, Final, Self

from runfold_stack.errors import StackError

from .binaries import Program
from .daemon import Daemon, StopSteps
from .owned_folder import Identity
from .privileges import command_as, prepare_data_dir

START_TIMEOUT_S: Final = 600.0
KILL: Final[StopSteps] = ((Signals.SIGKILL, 30.0),)
# sun_path has 104 bytes on macOS, 108 on Linux, and ends with a NUL.
_MAX_SOCKET_BYTES = 103
# libpq splits hosts at commas; other characters need quoting, differently in each place.
_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")
# Not TMPDIR: it differs between terminals, and on macOS it is long.
_SHORT_ROOT = Path("/tmp")  # noqa: S108, the folder below is checked to be private


class EmbeddedServer(Daemon, ABC):
    """The server in the folder `data_dir`, which may run already.

    With `die_with_parent` the server ends when the thread that started it ends (Linux only):
    for tests.
    """

    _socket_name: ClassVar[str]
    _death_signal: ClassVar[Signals]
    _stop_steps: ClassVar[StopSteps]
    _abort_steps: ClassVar[StopSteps] = KILL
    """How to end a server that did not start as it should."""

    def __init__(
        self, data_dir: Path, *, binary: Path | None = None, die_with_parent: bool = False
    ) -> None:
        super().__init__(data_dir.absolute())
        self._binary = binary
        self._dies_with_parent = die_with_parent

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL for clients; it follows from the folder alone."""

    def start(self) -> None:
        """Start the server and wait until it answers; it may have much to load or to recover.

        Raise AlreadyRunningError if the folder is being served, and StartFailedError with the end
        of the server's log if the server gives up. A failed start leaves no process behind.
        """
        program = self._find_program()
        identity = prepare_data_dir(self.data_dir, program.path)
        with self._claim(identity) as lock:
            self._claim_socket_folder(identity)
            command = command_as(
                identity,
                self._prepare(program.path, identity),
                death_signal=self._death_signal if self._dies_with_parent else None,
            )
            self._spawn(lock, command, identity)
        try:
            self._await_ready(self.answers, START_TIMEOUT_S)
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

    @abstractmethod
    def _find_program(self) -> Program: ...

    @abstractmethod
    def _prepare(self, program: Path, identity: Identity | None) -> list[str]:
        """Bring the folder's files into shape, under the lock, and return the command."""

    @abstractmethod
    def _ping(self) -> bool: ...

    def _finish_start(self) -> None:
        """Complete what only a running server can do."""

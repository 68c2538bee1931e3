"""What the embedded PostgreSQL and Redis servers have in common: start, stop, kill, find again.

A server lives in one folder: its data, its log, its lock and its Unix socket. Any process that
knows the folder can find, stop or kill the server, whichever process started it (see `daemon`).
"""

from abc import ABC, abstractmethod
from pathlib import Path
from signal import Signals
from typing import ClassVar, Final, Self

from .binaries import Program
from .daemon import Daemon, StopSteps
from .owned_folder import Identity
from .privileges import command_as, prepare_data_dir
from .sockets import claim_socket_folder, is_private, socket_folder

START_TIMEOUT_S: Final = 600.0
KILL: Final[StopSteps] = ((Signals.SIGKILL, 30.0),)


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
            claim_socket_folder(self._socket_folder, self.data_dir, identity)
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
        return is_private(self._socket_folder, self.data_dir) and self._ping()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _socket_folder(self) -> Path:
        return socket_folder(self.data_dir, self._socket_name)

    @abstractmethod
    def _find_program(self) -> Program: ...

    @abstractmethod
    def _prepare(self, program: Path, identity: Identity | None) -> list[str]:
        """Bring the folder's files into shape, under the lock, and return the command."""

    @abstractmethod
    def _ping(self) -> bool: ...

    def _finish_start(self) -> None:
        """Complete what only a running server can do."""

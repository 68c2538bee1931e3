"""A Valkey or Redis of our own, on a Unix socket, its data kept in one folder.

Promises: what was written more than a second ago survives the server's death,
whatever the cause (`appendonly yes`, `appendfsync everysec`); nothing is ever
evicted. Killed halfway through a write, the server drops the torn end of its
append-only file at the next start and goes on.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .binaries import find_redis, probe
from .daemon import Daemon
from .privileges import command_as, prepare_data_dir
from .sockets import claim_socket_folder, is_private, socket_folder

_SOCKET = "redis.sock"

_ARGUMENTS = (
    *("--daemonize", "no"),
    *("--port", "0"),
    *("--unixsocketperm", "700"),
    *("--appendonly", "yes"),
    *("--appendfsync", "everysec"),
    *("--maxmemory-policy", "noeviction"),
    # The append-only file is the copy on disk; snapshots beside it would only cost.
    *("--save", ""),
)

_STOP = ((signal.SIGTERM, 60.0), (signal.SIGKILL, 10.0))
_KILL = ((signal.SIGKILL, 30.0),)


class RedisServer:
    """The server in the folder `data_dir`, which may run already.

    `extra_args` come last and win (`"--maxmemory", "100mb"`). With
    `die_with_parent` the server is killed when the thread that started it ends
    (Linux only): for tests.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        binary: Path | None = None,
        extra_args: Sequence[str] = (),
        die_with_parent: bool = False,
        start_timeout_s: float = 600.0,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self._binary = binary
        self._extra_args = tuple(extra_args)
        self._death_signal = signal.SIGKILL if die_with_parent else None
        self._start_timeout_s = start_timeout_s
        self._daemon = Daemon(self.data_dir, "redis")

    @property
    def _socket_folder(self) -> Path:
        return socket_folder(self.data_dir, _SOCKET)

    @property
    def url(self) -> str:
        """The URL of database 0, for redis-py and RQ."""
        return self.url_for(0)

    def url_for(self, database: int) -> str:
        """Return the URL of one of the server's numbered databases."""
        return f"unix://{self._socket_folder / _SOCKET}?db={database}"

    @property
    def pid(self) -> int | None:
        """The server's pid, whoever started it; None if it does not run."""
        return self._daemon.pid

    @property
    def log_path(self) -> Path:
        """Where the server logs."""
        return self._daemon.log_path

    def start(self) -> None:
        """Start the server and wait until it answers (it may have much to load).

        AlreadyRunningError if the folder is being served; StartFailedError with the end of the
        server's log if it gives up. Either way nothing is left running that was not before.
        """
        program = probe(self._binary) if self._binary else find_redis()
        identity = prepare_data_dir(self.data_dir, program.path)
        with self._daemon.claim(identity) as lock:
            claim_socket_folder(self._socket_folder, self.data_dir, identity)
            command = [str(program.path), *_ARGUMENTS, "--dir", str(self.data_dir)]
            command += ["--unixsocket", str(self._socket_folder / _SOCKET), *self._extra_args]
            command = command_as(identity, command, death_signal=self._death_signal)
            self._daemon.spawn(lock, command, os.environ, identity)
        try:
            self._daemon.await_ready(self.answers, self._start_timeout_s)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End the server, whoever started it, with all data on disk; do nothing if none runs."""
        self._daemon.end(_STOP)

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL), and wait until it is gone."""
        self._daemon.end(_KILL)

    def restart(self) -> None:
        """Stop the server, if it runs, and start it on the same data."""
        self.stop()
        self.start()

    def answers(self) -> bool:
        """Tell whether a server answers at `url`; not while it is loading its data."""
        if not is_private(self._socket_folder, self.data_dir):
            return False
        try:
            with redis.Redis(
                unix_socket_path=str(self._socket_folder / _SOCKET), retry=Retry(NoBackoff(), 0)
            ) as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

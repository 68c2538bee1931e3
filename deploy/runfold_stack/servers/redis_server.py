"""An embedded Valkey or Redis on a Unix socket.

Data written more than a second ago survives the server's death, and nothing is ever evicted. A
start after a kill drops the torn end of the append-only file.
"""

from collections.abc import Sequence
from pathlib import Path
from signal import Signals

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .binaries import Program, find_redis, probe
from .embedded_server import EmbeddedServer
from .owned_folder import Identity

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


class RedisServer(EmbeddedServer):
    """`extra_args` come last and override the defaults (`"--maxmemory", "100mb"`)."""

    name = "redis"
    _socket_name = "redis.sock"
    _death_signal = Signals.SIGKILL
    _stop_steps = ((Signals.SIGTERM, 60.0), (Signals.SIGKILL, 10.0))

    def __init__(
        self,
        data_dir: Path,
        *,
        binary: Path | None = None,
        extra_args: Sequence[str] = (),
        die_with_parent: bool = False,
    ) -> None:
        super().__init__(data_dir, binary=binary, die_with_parent=die_with_parent)
        self._extra_args = tuple(extra_args)

    @property
    def url(self) -> str:
        return f"unix://{self._socket}?db=0"

    @property
    def _socket(self) -> Path:
        return self._socket_folder / self._socket_name

    def _find_program(self) -> Program:
        return probe(self._binary) if self._binary else find_redis()

    def _prepare(self, program: Path, identity: Identity | None) -> list[str]:  # noqa: ARG002
        folder = ("--dir", str(self.data_dir), "--unixsocket", str(self._socket))
        return [str(program), *_ARGUMENTS, *folder, *self._extra_args]

    def _ping(self) -> bool:
        try:
            with redis.Redis(
                unix_socket_path=str(self._socket), retry=Retry(NoBackoff(), 0)
            ) as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False

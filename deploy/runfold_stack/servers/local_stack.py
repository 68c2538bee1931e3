"""The two servers behind one data directory.

An endpoint is, in this order: the given URL; a server that already runs on the data directory; a
server that is started there. A stack stops only the servers that it has started or adopted.

If the process that started the servers is killed, they keep running, and the next `open_stack` or
`find_running` on the same data directory finds them.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from runfold_stack.errors import AlreadyRunningError, StackError

from .embedded_server import EmbeddedServer
from .postgres_server import PostgresServer
from .privileges import check_home
from .redis_server import RedisServer

_POLL_S = 0.05
_OTHERS_START_S = 600.0


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The URLs of both servers."""

    redis_url: str
    database_url: str


class LocalStack:
    """The endpoints, and the servers to stop at the end: a context manager."""

    def __init__(self, endpoints: Endpoints, owned: tuple[EmbeddedServer, ...]) -> None:
        self.endpoints = endpoints
        self.owned = owned

    def stop(self) -> None:
        """Stop the owned servers, Redis last: it keeps what runners still emit."""
        with ExitStack() as stops:
            for server in self.owned:
                stops.callback(server.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def open_stack(
    data_dir: Path,
    *,
    redis_url: str | None = None,
    database_url: str | None = None,
    die_with_parent: bool = False,
    adopt: bool = False,
) -> LocalStack:
    """Resolve both endpoints; start the servers that are neither given nor running.

    With `adopt`, servers of this data directory that already run count as owned: for the process
    that holds the directory's lock, whose predecessor may have been killed. Raise StackError if a
    server cannot be started; servers that were started before it are stopped again.
    """
    owned: list[EmbeddedServer] = []
    with ExitStack() as undo:

        def ensure(server: EmbeddedServer) -> str:
            if started := _ensure_running(server):
                undo.callback(server.stop)
            if started or adopt:
                owned.append(server)
            return server.url

        if redis_url is None:
            redis_url = ensure(_redis(data_dir, die_with_parent=die_with_parent))
        if database_url is None:
            database_url = ensure(_postgres(data_dir, die_with_parent=die_with_parent))
        undo.pop_all()
    return LocalStack(Endpoints(redis_url, database_url), tuple(owned))


def find_running(
    data_dir: Path, *, redis_url: str | None = None, database_url: str | None = None
) -> Endpoints | None:
    """Return the endpoints that are given or answer; None if one is missing. Start nothing."""
    redis_url = redis_url or find_redis_url(data_dir)
    database_url = database_url or find_database_url(data_dir)
    if redis_url is None or database_url is None:
        return None
    return Endpoints(redis_url, database_url)


def find_redis_url(data_dir: Path) -> str | None:
    """Return the URL of the Redis that answers for this data directory, if one does."""
    check_home(data_dir)
    server = _redis(data_dir)
    return server.url if server.answers() else None


def find_database_url(data_dir: Path) -> str | None:
    """Return the URL of the PostgreSQL that answers for this data directory, if one does."""
    check_home(data_dir)
    server = _postgres(data_dir)
    return server.url if server.answers() else None


def stop_running(data_dir: Path) -> list[str]:
    """Stop the servers of this data directory, also those that a killed `runfold up` left.

    Return the names of those that ran.
    """
    check_home(data_dir)
    servers: tuple[EmbeddedServer, ...] = (_postgres(data_dir), _redis(data_dir))
    running = [server for server in servers if server.pid is not None]
    for server in running:
        server.stop()
    return [server.data_dir.name for server in running]


def _redis(data_dir: Path, *, die_with_parent: bool = False) -> RedisServer:
    return RedisServer(data_dir / "redis", die_with_parent=die_with_parent)


def _postgres(data_dir: Path, *, die_with_parent: bool = False) -> PostgresServer:
    return PostgresServer(data_dir / "postgres", die_with_parent=die_with_parent)


def _ensure_running(server: EmbeddedServer) -> bool:
    """Return whether this call has started the server, rather than found it running."""
    if server.answers():
        return False
    deadline = time.monotonic() + _OTHERS_START_S
    while True:
        try:
            server.start()
        except AlreadyRunningError as error:
            # Two processes open the stack at once: one starts the server, the other waits, and
            # starts it if the first gives up.
            if server.answers():
                return False
            if time.monotonic() > deadline:
                raise StackError(
                    f"{error} But it does not answer: see {server.log_path}."
                ) from error
            time.sleep(_POLL_S)
        else:
            return True

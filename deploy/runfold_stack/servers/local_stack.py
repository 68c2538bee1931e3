"""The two servers behind one data directory.

An endpoint is, in this order: the given URL; a server that already runs on the data directory; a
server that is started there. A stack stops only the servers that it has started or adopted.
"""

import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import NamedTuple

from runfold_stack.errors import AlreadyRunningError, StackError

from .embedded_server import EmbeddedServer
from .postgres_server import PostgresServer
from .privileges import check_home
from .redis_server import RedisServer

_POLL_S = 0.05
_OTHERS_START_S = 600.0


class Endpoints(NamedTuple):
    redis_url: str
    database_url: str


class LocalStack(AbstractContextManager["LocalStack"]):
    """The endpoints, and the servers to stop at the end."""

    def __init__(self, endpoints: Endpoints, owned: tuple[EmbeddedServer, ...]) -> None:
        self.endpoints = endpoints
        self.owned = owned

    def stop(self) -> None:
        """Stop the owned servers, Redis last: it keeps what runners still emit."""
        with ExitStack() as stops:
            for server in self.owned:
                stops.callback(server.stop)

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

    With `adopt`, for the holder of the directory's lock, running servers count as owned. Raise
    StackError if a server cannot be started; servers that were started before it are stopped.
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
            redis_url = ensure(RedisServer(data_dir / "redis", die_with_parent=die_with_parent))
        if database_url is None:
            postgres = PostgresServer(data_dir / "postgres", die_with_parent=die_with_parent)
            database_url = ensure(postgres)
        undo.pop_all()
    return LocalStack(Endpoints(redis_url, database_url), tuple(owned))


def find_redis_url(data_dir: Path) -> str | None:
    """Return the URL of the Redis that answers for this data directory, if one does."""
    return _url_if_running(RedisServer(data_dir / "redis"))


def find_database_url(data_dir: Path) -> str | None:
    """Return the same of PostgreSQL."""
    return _url_if_running(PostgresServer(data_dir / "postgres"))


def _url_if_running(server: EmbeddedServer) -> str | None:
    check_home(server.data_dir.parent)
    return server.url if server.answers() else None


def stop_running(data_dir: Path) -> list[str]:
    """Stop the servers of this data directory; return the names of those that ran."""
    check_home(data_dir)
    servers = (PostgresServer(data_dir / "postgres"), RedisServer(data_dir / "redis"))
    running = [server for server in servers if server.pid is not None]
    for server in running:
        server.stop()
    return [server.name for server in running]


def _ensure_running(server: EmbeddedServer) -> bool:
    """Return whether this call has started the server, rather than found it running."""
    deadline = time.monotonic() + _OTHERS_START_S
    while not server.answers():
        try:
            server.start()
        except AlreadyRunningError as error:
            # Two processes open the stack at once: one starts the server, the other waits, and
            # starts it if the first gives up.
            if time.monotonic() > deadline:
                message = f"{error} But it does not answer: see {server.log_path}."
                raise StackError(message) from error
            time.sleep(_POLL_S)
        else:
            return True
    return False

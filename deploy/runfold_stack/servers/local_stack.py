"""The two servers behind one data directory.

Where an endpoint comes from, in this order: a URL that was given; a server that
already runs on the data directory; a server that we start there. What is found
running is used and left running, unless it is adopted; only what was started or
adopted here is stopped here.

If the process that started the servers is killed, they go on, and the next
`open_stack` or `find_running` on the same data directory finds them.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from runfold_stack.errors import AlreadyRunningError, StackError

from .data_dir import check_home
from .postgres_server import PostgresServer
from .redis_server import RedisServer

_POLL_S = 0.05
_OTHERS_START_S = 600.0


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the servers are."""

    redis_url: str
    database_url: str


class LocalStack:
    """Endpoints, and the servers among them that must be stopped: a context manager."""

    def __init__(
        self, endpoints: Endpoints, owned: tuple[RedisServer | PostgresServer, ...]
    ) -> None:
        self.endpoints = endpoints
        self.owned = owned

    def stop(self) -> None:
        """Stop what was started here, PostgreSQL first: what is emitted meanwhile is kept."""
        with ExitStack() as stops:
            for server in self.owned:
                stops.callback(server.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def open_stack(
    data_dir: Path,
    *,
    redis_url: str | None = None,
    database_url: str | None = None,
    die_with_parent: bool = False,
    adopt: bool = False,
) -> LocalStack:
    """Resolve both endpoints, starting what is neither given nor running.

    With `adopt`, servers of this data directory that run already count as started here: for
    whoever holds the directory's lock and finds what a killed predecessor left behind.
    StackError if one cannot be had; then nothing is left running that was not before.
    """
    owned: list[RedisServer | PostgresServer] = []
    with ExitStack() as undo:
        if redis_url is None:
            redis = _redis(data_dir, die_with_parent=die_with_parent)
            redis_url = redis.url
            if _ensure_running(redis):
                undo.callback(redis.stop)
                owned.append(redis)
            elif adopt:
                owned.append(redis)
        if database_url is None:
            postgres = _postgres(data_dir, die_with_parent=die_with_parent)
            database_url = postgres.url
            if _ensure_running(postgres) or adopt:
                owned.append(postgres)
        undo.pop_all()
    return LocalStack(Endpoints(redis_url, database_url), tuple(owned))


def find_running(
    data_dir: Path, *, redis_url: str | None = None, database_url: str | None = None
) -> Endpoints | None:
    """Return the endpoints, given or answering; None if one of them is neither.

    Starts nothing and writes nothing.
    """
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
    """Stop the servers of this data directory, whoever started them; return their names.

    For those that a killed `runfold up` left behind.
    """
    check_home(data_dir)
    stopped = []
    if (postgres := _postgres(data_dir)).pid is not None:
        postgres.stop()
        stopped.append("postgres")
    if (redis := _redis(data_dir)).pid is not None:
        redis.stop()
        stopped.append("redis")
    return stopped


def _redis(data_dir: Path, *, die_with_parent: bool = False) -> RedisServer:
    return RedisServer(data_dir / "redis", die_with_parent=die_with_parent)


def _postgres(data_dir: Path, *, die_with_parent: bool = False) -> PostgresServer:
    return PostgresServer(data_dir / "postgres", die_with_parent=die_with_parent)


def _ensure_running(server: RedisServer | PostgresServer) -> bool:
    """Return True if we started it, False if it was running or somebody else started it."""
    if server.answers():
        return False
    deadline = time.monotonic() + _OTHERS_START_S
    while True:
        try:
            server.start()
        except AlreadyRunningError as error:
            # Two `runfold up` at once: one starts, the other waits; and takes over if the
            # first gives up.
            if server.answers():
                return False
            if time.monotonic() > deadline:
                raise StackError(
                    f"{error} But it does not answer; see {server.log_path}."
                ) from error
            time.sleep(_POLL_S)
        else:
            return True

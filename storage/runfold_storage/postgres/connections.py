"""Connections to PostgreSQL, and read transactions over a pool of them."""

import select
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import msgspec
import psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.json import set_json_loads
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from runfold_storage.errors import (
    BadParameter,
    DatabaseUnreachable,
    ReadTooSlow,
    SchemaOutdated,
    StorageError,
)

ReadConnection = psycopg.Connection[Any]
"""A connection whose rows are named tuples."""

_SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg")

# A server that vanished without closing the connection is detected within 30 s, not two hours.
_PATIENCE: Final[dict[str, Any]] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


def check_url(url: str) -> str:
    """Return the URL as libpq takes it; raise `BadParameter` if it is none of PostgreSQL."""
    try:
        scheme = make_url(url).drivername
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        scheme = ""
    if scheme not in _SCHEMES:
        raise BadParameter("database_url", "expected postgresql://user:password@host:port/database")
    return "postgresql" + url[len(scheme) :]


def connect(url: str, **options: Any) -> psycopg.Connection:
    """Connect with psycopg; raise `DatabaseUnreachable` with the driver's message."""
    try:
        return psycopg.connect(check_url(url), **_PATIENCE, **options)
    except psycopg.OperationalError as error:
        raise DatabaseUnreachable(f"PostgreSQL did not answer: {error}".rstrip()) from error


def read_clock(connection: psycopg.Connection) -> datetime:
    """Return the time of the current transaction by the server's clock."""
    now: datetime = scalar(connection, "SELECT now()")
    return now


def scalar(connection: psycopg.Connection, statement: Any, parameters: Any = None) -> Any:
    """Return the first column of the first row; None without rows."""
    row = connection.execute(statement, parameters).fetchone()
    return None if row is None else row[0]


def _replace_if_broken(connection: psycopg.Connection, *_: object) -> None:
    """Detect a closed connection without a ping, which takes as long as a short read.

    The server sends nothing unasked: if there is something to read, it has ended the session.
    """
    poll = select.poll()  # select() is limited to file descriptors below 1024
    if not connection.closed:
        poll.register(connection.fileno(), select.POLLIN)
    if connection.closed or poll.poll(0):
        raise DisconnectionError("the server has ended the session")


def explain(error: BaseException) -> StorageError | None:
    """Translate an error of psycopg for the caller; None if it is a bug."""
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return ReadTooSlow("a lock was not available in time: try again")
    if isinstance(error, psycopg.errors.QueryCanceled):
        return ReadTooSlow("the read took too long: narrow its filters, or its time range")
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        found = error.diag.message_primary
        return SchemaOutdated(
            f"the database's schema is not this Runfold's; run: runfold migrate ({found})"
        )
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseUnreachable(f"PostgreSQL did not answer: {error}".rstrip())
    return None


class ReadTransactions:
    """Read transactions (REPEATABLE READ) over a small pool of lazily opened connections.

    Calls, and the code inside the context, raise `DatabaseUnreachable`, `SchemaOutdated` if tables
    are missing, and `ReadTooSlow` after `timeout_s`.
    """

    def __init__(self, dsn: str, *, pool_size: int, timeout_s: float) -> None:
        url = check_url(dsn)

        def open_connection() -> Any:
            connection = connect(
                url,
                options=f"-c statement_timeout={round(timeout_s * 1000)} -c timezone=UTC",
                application_name="runfold-history",
                row_factory=namedtuple_row,
            )
            set_json_loads(msgspec.json.decode, connection)
            # One snapshot per transaction: counts, pages and watermark of its statements agree.
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            return connection

        self._pool = QueuePool(open_connection, pool_size=pool_size, max_overflow=pool_size)
        event.listen(self._pool, "checkout", _replace_if_broken)

    @contextmanager
    def __call__(self) -> Iterator[ReadConnection]:
        """Open a transaction."""
        try:
            pooled = self._pool.connect()
        except PoolTimeoutError as error:
            raise DatabaseUnreachable("all connections to PostgreSQL are busy") from error
        connection: Any = pooled.driver_connection
        try:
            yield connection
        except psycopg.Error as error:
            raise explain(error) or error from error
        finally:
            if connection.closed:
                pooled.invalidate()
            pooled.close()

    def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        self._pool.dispose()
        self._pool = self._pool.recreate()

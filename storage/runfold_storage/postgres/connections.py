"""Connections to PostgreSQL, and read transactions over a pool of them."""

import select
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import msgspec
import psycopg
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from runfold_storage.errors import (
    BadParameter,
    DatabaseUnreachable,
    ReadTooSlow,
    SchemaOutdated,
    StorageError,
)

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


def make_engine(
    url: str, *, pool_size: int = 5, session: Mapping[str, str] | None = None
) -> Engine:
    """Return an engine for reads, which connects on first use and replaces broken connections.

    `session` has PostgreSQL settings for each connection.
    """
    options = " ".join(f"-c {name}={value}" for name, value in (session or {}).items())
    engine = create_engine(
        check_url(url).replace("postgresql:", "postgresql+psycopg:", 1),
        pool_size=pool_size,
        max_overflow=pool_size,
        json_deserializer=msgspec.json.decode,
        connect_args=_PATIENCE | ({"options": options} if options else {}),
    )
    event.listen(engine, "checkout", _replace_if_broken)
    return engine


def _replace_if_broken(connection: psycopg.Connection, *_: object) -> None:
    """Detect a closed connection without a ping, which takes as long as a short read.

    The server sends nothing unasked: if there is something to read, it has ended the session.
    """
    if connection.closed or _is_readable(connection.fileno()):
        raise DisconnectionError("the server has ended the session")


def _is_readable(file: int) -> bool:
    poll = select.poll()  # select() is limited to file descriptors below 1024
    poll.register(file, select.POLLIN)
    return bool(poll.poll(0))


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
        session = {
            "statement_timeout": str(round(timeout_s * 1000)),
            "timezone": "UTC",
            "application_name": "runfold-history",
        }
        self._engine = make_engine(dsn, pool_size=pool_size, session=session)
        event.listen(self._engine, "connect", _use_one_snapshot)

    @contextmanager
    def __call__(self) -> Iterator[Connection]:
        """Open a transaction."""
        try:
            with self._engine.connect() as connection:
                try:
                    yield connection
                except psycopg.Error:  # SQLAlchemy sees only what it has executed itself
                    driver: Any = connection.connection.driver_connection
                    if driver.closed:
                        connection.invalidate()
                    raise
        except PoolTimeoutError as error:
            raise DatabaseUnreachable("all connections to PostgreSQL are busy") from error
        except DBAPIError as error:
            translated = explain(error.orig) if error.orig is not None else None
            raise translated or error from error
        except psycopg.Error as error:
            raise explain(error) or error from error

    def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        self._engine.dispose()


def _use_one_snapshot(connection: psycopg.Connection, *_: object) -> None:
    """Make counts, pages and watermark of several statements agree: one snapshot per transaction.

    It is set once per connection; SQLAlchemy would set and reset it for each transaction.
    """
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True

"""Connections to PostgreSQL. No connection lives at module level."""

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

# A server that vanished without a word is noticed within half a minute, not after two hours.
_PATIENCE: Final[dict[str, Any]] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


def check_url(url: str) -> str:
    """A URL that libpq takes; raises `BadParameter` naming what is wrong."""
    try:
        scheme = make_url(url).drivername
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        scheme = ""
    if scheme not in _SCHEMES:
        raise BadParameter("database_url", "expected postgresql://user:password@host:port/database")
    return "postgresql" + url[len(scheme) :]


def connect(url: str, **options: Any) -> psycopg.Connection:
    """A psycopg connection; raises `DatabaseUnreachable` with the server's own words."""
    try:
        return psycopg.connect(check_url(url), **_PATIENCE, **options)
    except psycopg.OperationalError as error:
        raise DatabaseUnreachable(f"PostgreSQL did not answer: {error}".rstrip()) from error


def read_clock(connection: psycopg.Connection) -> datetime:
    """The time of the current transaction, by the server's clock."""
    row = connection.execute("SELECT now()").fetchone()
    assert row is not None
    now: datetime = row[0]
    return now


def make_engine(
    url: str, *, pool_size: int = 5, session: Mapping[str, str] | None = None
) -> Engine:
    """An engine for reads: it connects on first use, and replaces connections that broke.

    `session`: PostgreSQL settings that each connection starts with.
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
    """Without a ping, which takes as long as a short read.

    Nothing is due from the server: if there is something to read, it is a farewell.
    """
    if connection.closed or _has_something_to_say(connection.fileno()):
        raise DisconnectionError("the server has ended the session")


def _has_something_to_say(file: int) -> bool:
    poll = select.poll()  # select() knows no file beyond the 1024th
    poll.register(file, select.POLLIN)
    return bool(poll.poll(0))


def explain(error: BaseException) -> StorageError | None:
    """What an error of psycopg's means for whoever asked; None for a fault of ours."""
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return ReadTooSlow("others were writing all the time: try again")
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
    """Of one database, over a few connections that are opened when they are needed.

    A call raises, also for what happens within it, `DatabaseUnreachable`, `SchemaOutdated` when
    tables are missing, and `ReadTooSlow` after `timeout_s`.
    """

    def __init__(self, dsn: str, *, pool_size: int, timeout_s: float) -> None:
        session = {
            "statement_timeout": str(round(timeout_s * 1000)),
            "timezone": "UTC",
            "application_name": "runfold-history",
        }
        self._engine = make_engine(dsn, pool_size=pool_size, session=session)
        event.listen(self._engine, "connect", _see_one_state)

    @contextmanager
    def __call__(self) -> Iterator[Connection]:
        """Take one."""
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
        """Close all connections; the next call would open new ones."""
        self._engine.dispose()


def _see_one_state(connection: psycopg.Connection, *_: object) -> None:
    """Counts, pages and watermark come from several statements and must agree.

    Said once: SQLAlchemy would set it for each transaction, and take it back.
    """
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True

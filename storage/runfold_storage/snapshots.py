"""Read-only transactions, in each of which all statements see the same state."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from .databases import explain, make_engine
from .errors import DatabaseUnreachable


class Snapshots:
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

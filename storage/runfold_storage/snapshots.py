"""Read-only snapshots of one database, on connections that are kept; errors in our own words."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from .databases import explain, make_engine
from .errors import DatabaseUnreachable


class Snapshots:
    """May be shared by threads; no connection is opened before the first read."""

    def __init__(self, dsn: str, *, pool_size: int, timeout_s: float) -> None:
        session = {
            "statement_timeout": str(round(timeout_s * 1000)),
            "timezone": "UTC",
            "application_name": "runfold-history",
        }
        self.engine = make_engine(dsn, pool_size=pool_size, session=session)
        event.listen(self.engine, "connect", _read_one_state)

    def close(self) -> None:
        """Close all connections; the next read would open new ones."""
        self.engine.dispose()

    @contextmanager
    def open(self) -> Iterator[Connection]:
        """A read-only transaction in which all statements see the same state.

        Raises `DatabaseUnreachable`, `SchemaOutdated`, `ReadTooSlow`.
        """
        try:
            with self.engine.connect() as connection:
                yield connection
        except PoolTimeoutError as error:
            raise DatabaseUnreachable("all connections to PostgreSQL are busy") from error
        except DBAPIError as error:
            raise _translated(error) from error


def _read_one_state(connection: psycopg.Connection, *_: object) -> None:
    """Counts, pages and watermark come from several statements and must agree.

    Said once: SQLAlchemy would set it for each transaction, and take it back.
    """
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True


def _translated(error: DBAPIError) -> Exception:
    return (explain(error.orig) if error.orig is not None else None) or error

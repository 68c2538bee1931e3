"""Read-only snapshots of one database, on connections that are kept; errors in our own words."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
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
                # Counts, pages and watermark come from several statements and must agree.
                yield connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
        except PoolTimeoutError as error:
            raise DatabaseUnreachable("all connections to PostgreSQL are busy") from error
        except DBAPIError as error:
            raise _translated(error) from error


def _translated(error: DBAPIError) -> Exception:
    return (explain(error.orig) if error.orig is not None else None) or error

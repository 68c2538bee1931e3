"""The servers that a command uses: those of the settings, else those of the data directory.

Without either, `CommandFailed` names the remedy.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import psycopg

from runfold_stack.servers.local_stack import Endpoints, find_database_url, find_redis_url

from .errors import UNREACHABLE, CommandFailed
from .settings import Settings

if TYPE_CHECKING:
    from runfold_storage import History


def require_endpoints(settings: Settings) -> Endpoints:
    return Endpoints(require_redis(settings), require_database(settings))


def require_redis(settings: Settings) -> str:
    url = settings.redis_url or find_redis_url(settings.home)
    return url or _missing("Redis", settings, "RUNFOLD_REDIS_URL")


def require_database(settings: Settings) -> str:
    url = settings.database_url or find_database_url(settings.home)
    return url or _missing("PostgreSQL", settings, "RUNFOLD_DATABASE_URL")


@contextmanager
def open_database(settings: Settings) -> Iterator[psycopg.Connection]:
    """Yield a connection in autocommit mode; raise if the schema is not up to date."""
    # Slow: SQLAlchemy and Alembic.
    from runfold_storage.migrate import check_schema
    from runfold_storage.postgres.connections import connect

    url = require_database(settings)
    check_schema(url)
    with connect(url, autocommit=True) as connection:
        yield connection


def open_history(settings: Settings) -> "History":
    from runfold_storage import History

    return History(require_database(settings), pool_size=1, archive_url=settings.archive_url)


def _missing(server: str, settings: Settings, variable: str) -> NoReturn:
    remedy = f"start one with `runfold up`, or set {variable}"
    raise CommandFailed(f"no {server} is running in {settings.home}: {remedy}", UNREACHABLE)

"""Migrate a database to the schema of this code, or back: `runfold migrate`.

Migrations run one at a time under an advisory lock, each in a transaction. So two processes that
start together do not collide, and one that dies halfway leaves the schema of some revision.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, create_engine, text

from runfold_storage.ledger.partitions import ensure_weeks, weeks_ahead
from runfold_storage.postgres.connections import connect

from .errors import SchemaOutdated
from .tables import metadata

_LOCK: Final = 0x52464D47  # 'RFMG'


def migrate(url: str, revision: str = "head") -> str | None:
    """Migrate to a revision, `head` or `base`; return the revision that the database then has."""
    with _locked(url) as connection:
        config = _config()
        config.attributes["connection"] = connection
        current = _current(connection)
        connection.commit()  # Alembic commits only the transactions that it began itself
        is_older = revision == "base" or (current and revision in _revisions_from(current))
        change = command.downgrade if current and is_older else command.upgrade
        change(config, revision)
        now = _current(connection)
    if now == head():
        with connect(url, autocommit=True) as writer:
            ensure_weeks(writer, [*weeks_ahead(datetime.now(UTC).date()), None])
    return now


def current_revision(url: str) -> str | None:
    """Return the database's revision; None for an empty database."""
    with _connected(url) as connection:
        return _current(connection)


def is_known(revision: str) -> bool:
    """Return whether `migrate` knows this revision."""
    return revision in ("head", "base", *_revisions_from("head"))


def head() -> str | None:
    """Return the revision that this code needs."""
    return _SCRIPTS.get_current_head()


def check_schema(url: str) -> None:
    """Raise `SchemaOutdated`, with the remedy, unless the database is at `head`."""
    found = current_revision(url)
    if found == head():
        return
    remedy = "run: runfold migrate"
    if found is not None and not is_known(found):
        remedy = "it was migrated by a newer Runfold: upgrade this one"
    raise SchemaOutdated(f"the database's schema is {found or 'empty'}, not {head()}; {remedy}")


def differences(url: str) -> list[Any]:
    """Return what Alembic would change to make the database match `tables`; empty if they agree."""
    with _connected(url) as connection:
        context = MigrationContext.configure(
            connection, opts={"include_object": is_ours, "compare_server_default": True}
        )
        return list(compare_metadata(context, metadata))


def is_ours(_item: object, name: str | None, kind: str, reflected: bool, compared: object) -> bool:
    """Return False for tables that are only in the database: partitions and unrelated tables."""
    return not (kind == "table" and reflected and compared is None and name not in metadata.tables)


def _revisions_from(revision: str) -> set[str]:
    """Return a revision and those before it."""
    return {script.revision for script in _SCRIPTS.iterate_revisions(revision, "base")}


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


_SCRIPTS: Final = ScriptDirectory.from_config(_config())


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connect(url), poolclass=NullPool
    )
    with engine.connect() as connection:
        yield connection


@contextmanager
def _locked(url: str) -> Iterator[Connection]:
    with _connected(url) as connection:
        # A session-level lock, as it has to span several transactions.
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        connection.commit()
        try:
            yield connection
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
            connection.commit()

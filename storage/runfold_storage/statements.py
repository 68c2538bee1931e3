"""Statements of SQLAlchemy Core on a connection of psycopg's, which a batch of work holds."""

from typing import Any, Final

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import Select
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

_DIALECT: Final = PGDialect_psycopg()  # type: ignore[no-untyped-call]


def execute(connection: psycopg.Connection, statement: Select[Any]) -> psycopg.Cursor[Any]:
    """Run a query in whatever transaction the connection is in."""
    query, parameters = compiled(statement)
    cursor = connection.cursor(row_factory=namedtuple_row)
    return cursor.execute(query.encode(), parameters)


def compiled(statement: Select[Any]) -> tuple[str, dict[str, Any]]:
    """A query as the driver takes it, and its parameters."""
    made: Any = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    processors = made._bind_processors
    parameters = {
        name: processors[name](value) if name in processors else value
        for name, value in made.construct_params().items()
    }
    return str(made), parameters

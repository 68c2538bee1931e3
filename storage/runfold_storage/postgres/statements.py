"""Statements of SQLAlchemy Core, compiled once and executed by psycopg."""

from collections import namedtuple
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import CompoundSelect, Connection, Select
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

_DIALECT: Final = PGDialect_psycopg()  # type: ignore[no-untyped-call]
_ROWS_KEPT: Final = 500


class Statement(NamedTuple):
    """A compiled query.

    SQLAlchemy takes as long to compile a page's query, or to find it in its cache, as PostgreSQL
    takes to answer it, and as long again to handle the result rows.
    """

    text: str
    parameters: Mapping[str, Any]
    """Constant parameters; the driver raises an error for any other that is missing."""
    row: Any
    """Converts a row to a named tuple."""

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> list[Any]:
        """Return all rows; parameters and errors are those of the driver."""
        driver: Any = connection.connection
        with driver.cursor() as cursor:
            cursor.execute(self.text, {**self.parameters, **parameters})
            return list(map(self.row, cursor.fetchall()))


def compile_statement(statement: Select[Any] | CompoundSelect[Any]) -> Statement:
    """Compile a statement: parameters with a value keep it, all others are given to `run`."""
    made: Any = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    processors = made._bind_processors
    missing = {name for name, parameter in made.binds.items() if parameter.required}
    parameters = {
        name: processors[name](value) if name in processors else value
        for name, value in made.construct_params(_check=False).items()
        if name not in missing
    }
    return Statement(str(made), parameters, row_of(*statement.selected_columns.keys()))


@lru_cache(_ROWS_KEPT)
def row_of(*names: str) -> Any:
    """Return a function that converts a row with these columns to a named tuple."""
    row: Any = namedtuple("Row", names, rename=True)  # type: ignore[misc]  # names that come
    return row._make


def execute(connection: psycopg.Connection, statement: Select[Any]) -> psycopg.Cursor[Any]:
    """Run a query on a psycopg connection, in its current transaction."""
    return query(connection, compile_statement(statement))


def query(
    connection: psycopg.Connection, statement: Statement, **parameters: Any
) -> psycopg.Cursor[Any]:
    """Run a compiled query on a psycopg connection."""
    cursor = connection.cursor(row_factory=namedtuple_row)
    return cursor.execute(statement.text.encode(), {**statement.parameters, **parameters})

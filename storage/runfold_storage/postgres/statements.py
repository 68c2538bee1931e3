"""Statements of SQLAlchemy Core as the driver takes them."""

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
    """A query that was made once, for whoever has parameters for it.

    SQLAlchemy makes a page's query anew, or looks up that it did, in the time that PostgreSQL needs
    to answer it, and looks at each column of each answer for as long again.
    """

    text: str
    parameters: Mapping[str, Any]
    """Those that are always the same: whatever else is missing is an error of the driver's."""
    row: Any
    """Makes a named tuple of a row."""

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> list[Any]:
        """All rows; parameters are given as the driver takes them, and its errors are raised."""
        driver: Any = connection.connection
        with driver.cursor() as cursor:
            cursor.execute(self.text, {**self.parameters, **parameters})
            return list(map(self.row, cursor.fetchall()))


def compile_statement(statement: Select[Any] | CompoundSelect[Any]) -> Statement:
    """As the driver takes it: parameters with a value keep it, the others are given each time."""
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
    """What makes a named tuple of a row with these columns."""
    row: Any = namedtuple("Row", names, rename=True)  # type: ignore[misc]  # names that come
    return row._make


def execute(connection: psycopg.Connection, statement: Select[Any]) -> psycopg.Cursor[Any]:
    """Run a query on a connection of psycopg's, in whatever transaction it is in."""
    return query(connection, compile_statement(statement))


def query(
    connection: psycopg.Connection, statement: Statement, **parameters: Any
) -> psycopg.Cursor[Any]:
    """The same with a query that was made once."""
    cursor = connection.cursor(row_factory=namedtuple_row)
    return cursor.execute(statement.text.encode(), {**statement.parameters, **parameters})

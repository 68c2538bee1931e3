"""Statements of SQLAlchemy Core as the driver takes them."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection, CursorResult, Select
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

_DIALECT: Final = PGDialect_psycopg()  # type: ignore[no-untyped-call]


class Statement(NamedTuple):
    """A query that was made once, for whoever has parameters for it.

    SQLAlchemy makes a page's query anew, or looks up that it did, in the time that PostgreSQL needs
    to answer it.
    """

    text: str
    parameters: Mapping[str, Any]
    """Those that are always the same: whatever else is missing is an error of the driver's."""

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> CursorResult[Any]:
        """Its answer; parameters are given as the driver takes them."""
        return connection.exec_driver_sql(self.text, {**self.parameters, **parameters})


def keep(statement: Select[Any]) -> Statement:
    """As the driver takes it: parameters with a value keep it, the others are given each time."""
    made: Any = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    processors = made._bind_processors
    missing = {name for name, parameter in made.binds.items() if parameter.required}
    parameters = {
        name: processors[name](value) if name in processors else value
        for name, value in made.construct_params(_check=False).items()
        if name not in missing
    }
    return Statement(str(made), parameters)


def execute(connection: psycopg.Connection, statement: Select[Any]) -> psycopg.Cursor[Any]:
    """Run a query on a connection of psycopg's, in whatever transaction it is in."""
    made = keep(statement)
    cursor = connection.cursor(row_factory=namedtuple_row)
    return cursor.execute(made.text.encode(), made.parameters)

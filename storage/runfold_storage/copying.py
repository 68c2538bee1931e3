"""COPY in binary form: the fastest way into a table, and exact to the microsecond."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

from .encoding import EPOCH_2000_US


class CopyColumn(NamedTuple):
    """A column and the type whose binary form is sent for it.

    `us` takes microseconds since 1970 into a timestamptz, without making a datetime of them;
    `utf8` takes bytes into a text column.
    """

    name: str
    kind: str


def copy_columns(**kinds: str) -> tuple[CopyColumn, ...]:
    """Columns in this order, each with its kind."""
    return tuple(CopyColumn(name, kind) for name, kind in kinds.items())


_SENT_AS: Final = {"us": "int8", "utf8": "bytea"}


def copy_encoded(
    connection: psycopg.Connection, table: str, fields: Sequence[str], chunks: Iterable[bytes]
) -> None:
    """Append rows that `encoding` has encoded, their fields in this order."""
    with connection.cursor() as cursor, cursor.copy(_statement(table, fields)) as copy:
        for chunk in chunks:
            copy.write(chunk)


def copy_rows(
    connection: psycopg.Connection,
    table: str,
    columns: Sequence[CopyColumn],
    rows: Iterable[Sequence[Any]],
) -> None:
    """Append rows, given in the columns' order; `psycopg.DataError` for what does not fit."""
    times = [i for i, column in enumerate(columns) if column.kind == "us"]
    statement = _statement(table, [column.name for column in columns])
    try:
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([_SENT_AS.get(column.kind, column.kind) for column in columns])
            for row in rows:
                values = list(row)
                for i in times:
                    if values[i] is not None:
                        values[i] -= EPOCH_2000_US
                copy.write_row(values)
    except OverflowError as error:  # psycopg's own, for what the server would refuse as well
        raise psycopg.DataError(f"{table}: a number is too large for its column") from error


def _statement(table: str, fields: Iterable[str]) -> sql.Composed:
    return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, fields))
    )

"""Rows that may be there already: COPY into a temporary table, then INSERT … ON CONFLICT.

Sorted by key, so that two writers cannot deadlock. Faster than executemany, and unlike MERGE it
does not race.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from .copying import CopyColumn, copy_rows


def upsert_rows(
    connection: psycopg.Connection,
    table: str,
    columns: Sequence[CopyColumn],
    key: Sequence[str],
    rows: Iterable[Sequence[Any]],
    merged: Mapping[str, sql.Composable] | None = None,
) -> None:
    """Write final images, whether the rows are there or not; `merged` columns look at both."""
    changed = {
        column.name: sql.SQL("excluded.{}").format(sql.Identifier(column.name))
        for column in columns
        if column.name not in key
    }
    assignments = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), value)
        for name, value in (changed | dict(merged or {})).items()
    )
    insert_or_update(connection, table, columns, key, rows, assignments)


def insert_or_update(
    connection: psycopg.Connection,
    table: str,
    columns: Sequence[CopyColumn],
    key: Sequence[str],
    rows: Iterable[Sequence[Any]],
    assignments: sql.Composable,
) -> None:
    """Insert rows; where the key is taken, `assignments` say what becomes of the row there."""
    first = next(iterator := iter(rows), None)
    if first is None:
        return
    temporary = f"batch_{table}"
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
    keys = sql.SQL(", ").join(map(sql.Identifier, key))
    # Kept for the session and emptied by COMMIT: a new one each time would bloat the catalogue.
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE IF NOT EXISTS {} (LIKE {}) ON COMMIT DELETE ROWS").format(
            sql.Identifier(temporary), sql.Identifier(table)
        )
    )
    copy_rows(connection, temporary, columns, _chain(first, iterator))
    connection.execute(
        sql.SQL(
            "INSERT INTO {table} ({names}) SELECT {names} FROM {temporary} ORDER BY {keys} "
            "ON CONFLICT ({keys}) DO UPDATE SET {assignments}"
        ).format(
            table=sql.Identifier(table),
            temporary=sql.Identifier(temporary),
            names=names,
            keys=keys,
            assignments=assignments,
        )
    )


def _chain(first: Sequence[Any], rest: Iterator[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    yield first
    yield from rest

"""Rows that may be there already: COPY into a temporary table, then INSERT … ON CONFLICT.

Sorted by key, so that two writers cannot deadlock. Faster than executemany, and unlike MERGE it
does not race.
"""

from collections.abc import Mapping, Sequence

import psycopg
from psycopg import sql

from .copying import copy_encoded


def upsert_rows(
    connection: psycopg.Connection,
    table: str,
    fields: Sequence[str],
    key: Sequence[str],
    rows: bytes,
    merged: Mapping[str, sql.Composable] | None = None,
) -> None:
    """Write final images (encoded), whether there or not; `merged` columns look at both."""
    changed = {
        name: sql.SQL("excluded.{}").format(sql.Identifier(name))
        for name in fields
        if name not in key
    }
    assignments = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), value)
        for name, value in (changed | dict(merged or {})).items()
    )
    insert_or_update(connection, table, fields, key, rows, assignments)


def insert_or_update(
    connection: psycopg.Connection,
    table: str,
    fields: Sequence[str],
    key: Sequence[str],
    rows: bytes,
    assignments: sql.Composable,
) -> None:
    """Insert rows (encoded); where the key is taken, `assignments` say what the row becomes."""
    temporary = f"batch_{table}"
    names = sql.SQL(", ").join(map(sql.Identifier, fields))
    keys = sql.SQL(", ").join(map(sql.Identifier, key))
    # Kept for the session and emptied by COMMIT: a new one each time would bloat the catalogue.
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE IF NOT EXISTS {} (LIKE {}) ON COMMIT DELETE ROWS").format(
            sql.Identifier(temporary), sql.Identifier(table)
        )
    )
    copy_encoded(connection, temporary, fields, [rows])
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

"""Rows that may be there already: COPY into a temporary table, then INSERT … ON CONFLICT.

Sorted by key, so that two writers cannot deadlock. Faster than executemany, and unlike MERGE it
does not race.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Final

import psycopg
from psycopg import sql

from .copying import copy_encoded


class Upsert:
    """How rows with these fields get into a table, whether their key is there or not.

    Without `assignments`, what comes replaces what is there, but for the columns that are
    `merged`. The statements' texts stay the same, so that the driver prepares them.
    """

    def __init__(
        self,
        table: str,
        fields: tuple[str, ...],
        key: tuple[str, ...],
        *,
        merged: Mapping[str, str] | None = None,
        assignments: str | None = None,
    ) -> None:
        self._table = table
        self._fields = fields
        self._key = key
        self._merged = merged or {}
        self._assignments = assignments
        self._temporary: Final = f"batch_{table}"

    def prepare(self, connection: psycopg.Connection) -> None:
        """Make the temporary table, for the whole session: one a batch would bloat the catalogue.

        COMMIT empties it.
        """
        connection.execute(
            sql.SQL(
                "CREATE TEMPORARY TABLE IF NOT EXISTS {} (LIKE {}) ON COMMIT DELETE ROWS"
            ).format(sql.Identifier(self._temporary), sql.Identifier(self._table))
        )

    def copy(self, connection: psycopg.Connection, rows: bytes) -> None:
        """Bring rows, encoded, to the database; after `prepare`."""
        copy_encoded(connection, self._temporary, self._fields, [rows])

    def insert(self, connection: psycopg.Connection) -> None:
        """Insert what was copied, or update what is there."""
        connection.execute(self._insert)

    @cached_property
    def _insert(self) -> sql.Composed:
        changed = {
            name: sql.SQL("excluded.{}").format(sql.Identifier(name))
            for name in self._fields
            if name not in self._key
        } | {name: sql.SQL(value) for name, value in self._merged.items()}
        assignments: sql.Composable = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), value)
            for name, value in changed.items()
        )
        if self._assignments is not None:
            assignments = sql.SQL(self._assignments)
        return sql.SQL(
            "INSERT INTO {table} ({names}) SELECT {names} FROM {temporary} ORDER BY {keys} "
            "ON CONFLICT ({keys}) DO UPDATE SET {assignments}"
        ).format(
            table=sql.Identifier(self._table),
            temporary=sql.Identifier(self._temporary),
            names=_names(self._fields),
            keys=_names(self._key),
            assignments=assignments,
        )


def _names(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))

"""Helpers for declaring tables, with columns grouped by type.

Migrations order the columns so that rows need no padding. They alone have what Alembic does not
compare: checks, storage parameters, partitioning.
"""

from typing import Any, Final

from sqlalchemy import Column, Computed, DateTime, MetaData, PrimaryKeyConstraint, Table, text
from sqlalchemy.schema import SchemaItem

metadata: Final = MetaData(
    naming_convention={
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

TIME: Final = DateTime(timezone=True)


def table(name: str, key: tuple[str, ...], *items: SchemaItem) -> Table:
    """Declare a table with this primary key."""
    return Table(name, metadata, *items, PrimaryKeyConstraint(*key))


def filled(kind: Any, *names: str, default: str | None = None) -> list[Column[Any]]:
    """Return columns that are never null."""
    server_default = None if default is None else text(default)
    return [Column(name, kind, nullable=False, server_default=server_default) for name in names]


def nullable(kind: Any, *names: str) -> list[Column[Any]]:
    """Return columns that may be null."""
    return [Column(name, kind) for name in names]


def derived(name: str, kind: Any, expression: str) -> Column[Any]:
    """Return a generated column; `expression` is written as PostgreSQL prints it, to compare both.

    It is null except for the few rows that its index is for. HOT compares values, so in all other
    rows the columns that it is computed from can change without a new index entry.
    """
    return Column(name, kind, Computed(expression, persisted=True))

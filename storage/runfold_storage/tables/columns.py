"""Helpers for declaring columns and constraints."""

from typing import Any, Final

from sqlalchemy import Column, Computed, DateTime, MetaData, text

metadata: Final = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

TIME: Final = DateTime(timezone=True)
ROOM_FOR_HOT_UPDATES: Final = {"fillfactor": 80}


def filled(name: str, kind: Any, default: str | None = None) -> Column[Any]:
    """Return a column that is never null."""
    server_default = None if default is None else text(default)
    return Column(name, kind, nullable=False, server_default=server_default)


def derived(name: str, kind: Any, expression: str) -> Column[Any]:
    """Return a generated column; `expression` is written as PostgreSQL prints it, to compare both.

    It is null except for the few rows that its index is for. HOT compares values, so in all other
    rows the columns that it is computed from can change without a new index entry.
    """
    return Column(name, kind, Computed(expression, persisted=True))


def one_of(values: tuple[str, ...]) -> str:
    return "status IN ({})".format(", ".join(f"'{value}'" for value in values))

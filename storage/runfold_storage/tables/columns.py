"""Helpers for declaring columns and constraints. Declared columns are grouped by type; migrations
order them so that rows need no padding."""

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
MUCH_ROOM: Final = {"fillfactor": 50}


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


def one_of(values: tuple[str, ...]) -> str:
    return "status IN ({})".format(", ".join(f"'{value}'" for value in values))

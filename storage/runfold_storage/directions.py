"""Places in a list of runs, and which way a page goes on from there."""

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, bindparam, tuple_

from .tables import runs
from .tables.columns import TIME

Key = tuple[datetime, UUID]
"""A run's place in a list: the time of its first event, and its key."""

_ANY_KEY: Final[Key] = (datetime(2000, 1, 1, tzinfo=UTC), UUID(int=0))


class Direction(NamedTuple):
    """Where a page goes on from: nothing for the first one, else towards older or newer runs."""

    key: Key | None = None
    is_newer: bool = False
    is_inclusive: bool = False

    def form(self) -> "Direction":
        """The one that stands for all whose statements differ in nothing but parameters."""
        return self if self.key is None else self._replace(key=_ANY_KEY)

    def parameters(self) -> dict[str, Any]:
        """What the conditions are given."""
        return {} if self.key is None else {"key_at": self.key[0], "key_run": self.key[1]}

    def conditions(self, of: Any = runs.c) -> list[ColumnElement[bool]]:
        """Only what lies beyond the key, or at it."""
        if self.key is None:
            return []
        place = tuple_(of.created_at, of.run)
        key = tuple_(
            bindparam("key_at", self.key[0], TIME), bindparam("key_run", self.key[1], Uuid)
        )
        if self.is_newer:
            return [place >= key if self.is_inclusive else place > key]
        return [place <= key if self.is_inclusive else place < key]

    def order(self, of: Any) -> list[ColumnElement[Any]]:
        """The order of the walk, for a table that has the key's columns."""
        keys = [of.created_at, of.run]
        return [key.asc() if self.is_newer else key.desc() for key in keys]


NEWEST_FIRST: Final = Direction()

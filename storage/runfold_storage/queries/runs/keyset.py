"""Places in a list of runs, and which way a page goes on from there."""

from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, bindparam, tuple_

from runfold_storage.tables import runs
from runfold_storage.tables.columns import TIME

Key = tuple[datetime, UUID]
"""A run's place in a list: the time of its first event, and its key."""


class KeysetPosition(NamedTuple):
    """Where a page goes on from: nothing for the first one, else towards older or newer runs."""

    key: Key | None = None
    is_newer: bool = False
    is_inclusive: bool = False

    def form(self) -> "DirectionForm":
        """What the statements for it depend on."""
        return DirectionForm(self.key is not None, self.is_newer, self.is_inclusive)

    def parameters(self) -> dict[str, Any]:
        """What those statements are given."""
        return {} if self.key is None else {"key_at": self.key[0], "key_run": self.key[1]}


class DirectionForm(NamedTuple):
    """What directions have in common whose statements differ in nothing but parameters."""

    has_key: bool
    is_newer: bool
    is_inclusive: bool

    def conditions(self, of: Any = runs.c) -> list[ColumnElement[bool]]:
        """Only what lies beyond the key, or at it."""
        if not self.has_key:
            return []
        place = tuple_(of.created_at, of.run)
        key = tuple_(bindparam("key_at", type_=TIME), bindparam("key_run", type_=Uuid))
        if self.is_newer:
            return [place >= key if self.is_inclusive else place > key]
        return [place <= key if self.is_inclusive else place < key]

    def order(self, of: Any) -> list[ColumnElement[Any]]:
        """The order of the walk, for a table that has the key's columns."""
        keys = [of.created_at, of.run]
        return [key.asc() if self.is_newer else key.desc() for key in keys]


NEWEST_FIRST: Final = KeysetPosition()

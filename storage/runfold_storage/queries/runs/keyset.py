"""Keyset pagination: positions in a list of runs, and the direction in which a page continues."""

from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

ListKey = tuple[datetime, UUID]
"""A run's position in a list: the time of its first event, and its key."""


class KeysetPosition(NamedTuple):
    """Where a page begins: without a key at the newest run; else towards older or newer runs."""

    key: ListKey | None = None
    is_newer: bool = False
    is_inclusive: bool = False

    def parameters(self) -> dict[str, Any]:
        """Return the values of the parameters of `conditions`."""
        return {} if self.key is None else {"key_at": self.key[0], "key_run": self.key[1]}

    def conditions(self) -> list[str]:
        """Return the SQL conditions for the runs `r` beyond the key, or at it."""
        if self.key is None:
            return []
        operator = (">" if self.is_newer else "<") + ("=" if self.is_inclusive else "")
        key = "(%(key_at)s::timestamptz, %(key_run)s::uuid)"
        return [f"(r.created_at, r.run) {operator} {key}"]

    @property
    def order(self) -> str:
        """The order of reading, as SQL over the runs `r`."""
        side = "ASC" if self.is_newer else "DESC"
        return f"r.created_at {side}, r.run {side}"


NEWEST_FIRST: Final = KeysetPosition()

"""Figures of days to which nothing is added any more, kept in memory, and sums of them.

Adding up sixty thousand bins takes longer than everything else about a month by day, and those of
yesterday hardly ever change. Invariant: what is remembered of a day is what its rows say in any
snapshot in which they are these rows. They are told by how many they are and by the transactions
that wrote them (`xmin`), whose sum grows with every change of a row.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from .tallies import Tally, merged

MOST: Final = 500
"""Days, of some 20 kB each."""
_MOST_SUMS: Final = 50

Key = tuple[str | None, str | None, datetime]
"""Project, workflow, day."""


class RememberedDays:
    """Safe to be shared by threads; the days that were asked for least recently are forgotten."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._days: OrderedDict[Key, tuple[Any, Tally]] = OrderedDict()
        self._sums: OrderedDict[tuple[int, ...], tuple[list[Tally], Tally]] = OrderedDict()

    def get(self, key: Key, version: Any) -> Tally | None:
        """What is known of the day, if its rows are still those; nothing may be added to it."""
        with self._lock:
            found = self._days.get(key)
            if found is None or found[0] != version:
                return None
            self._days.move_to_end(key)
            return found[1]

    def put(self, key: Key, version: Any, tally: Tally) -> None:
        """What these rows say, which is complete."""
        tally.complete()
        with self._lock:
            self._days[key] = (version, tally)
            self._days.move_to_end(key)
            if len(self._days) > self._most:
                self._days.popitem(last=False)

    def merged(self, tallies: Iterable[Tally]) -> Tally:
        """The sum; that of the complete ones is remembered, as the same are added up every day."""
        complete: list[Tally] = []
        others: list[Tally] = []
        for tally in tallies:
            (complete if tally.is_complete else others).append(tally)
        return merged([self._sum(complete), *others])

    def _sum(self, complete: list[Tally]) -> Tally:
        # By their identities: a sum holds what it was made of, so none of them is given away.
        key = tuple(map(id, complete))
        with self._lock:
            if (found := self._sums.get(key)) is not None:
                self._sums.move_to_end(key)
                return found[1]
        made = merged(complete)
        made.complete()
        with self._lock:
            self._sums[key] = (complete, made)
            if len(self._sums) > _MOST_SUMS:
                self._sums.popitem(last=False)
        return made

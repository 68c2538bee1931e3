"""Figures of days to which nothing is added any more, kept in memory, and sums of them.

Adding up sixty thousand bins takes longer than everything else about a month by day, and those of
yesterday hardly ever change. Invariant: what is remembered of a day is what its rows say in any
snapshot in which they are these rows. They are told by how many they are, how many runs they count,
and by hashes of the transactions that wrote them (`xmin`).
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from itertools import count
from typing import Any, Final

from .aggregate import Aggregate, merged

MOST: Final = 1000
"""Days, of some 20 kB each."""
_MOST_SUMS: Final = 50

DayKey = tuple[str | None, str | None, str, datetime]
"""Project, workflow, time zone, beginning of the day."""


class DayCache:
    """Safe to be shared by threads; the days that were asked for least recently are forgotten.

    A day that is found unchanged is complete, as far as anybody can tell: it has a number by then,
    and sums are remembered by the numbers of their days. One that is written to all the time is
    none of them, so that it does not spoil the others' sum.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._days: OrderedDict[DayKey, tuple[Any, Aggregate]] = OrderedDict()
        self._sums: OrderedDict[tuple[int, ...], Aggregate] = OrderedDict()

    def get(self, key: DayKey, version: Any) -> Aggregate | None:
        """What is known of the day, if its rows are still those; nothing may be added to it."""
        with self._lock:
            found = self._days.get(key)
            if found is None or found[0] != version:
                return None
            self._days.move_to_end(key)
            aggregate = found[1]
            if aggregate.number is None:
                aggregate.complete(next(self._numbers))
            return aggregate

    def put(self, key: DayKey, version: Any, aggregate: Aggregate) -> None:
        """What these rows say; nothing may be added to it any more."""
        with self._lock:
            self._days[key] = (version, aggregate)
            self._days.move_to_end(key)
            if len(self._days) > self._most:
                self._days.popitem(last=False)

    def merged(self, aggregates: Iterable[Aggregate]) -> Aggregate:
        """The sum; that of the complete ones is remembered, as the same are added up every day."""
        complete: dict[int, Aggregate] = {}
        others: list[Aggregate] = []
        for aggregate in aggregates:
            if aggregate.number is None:
                others.append(aggregate)
            else:
                complete[aggregate.number] = aggregate
        return merged([self._sum(complete), *others] if complete else others)

    def _sum(self, complete: dict[int, Aggregate]) -> Aggregate:
        key = tuple(sorted(complete))
        with self._lock:
            if (found := self._sums.get(key)) is not None:
                self._sums.move_to_end(key)
                return found
        made = merged(complete.values())
        with self._lock:
            if made.number is None:
                made.complete(next(self._numbers))
            self._sums[key] = made
            if len(self._sums) > _MOST_SUMS:
                self._sums.popitem(last=False)
        return made

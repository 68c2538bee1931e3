"""Histograms of days to which nothing is added any more, kept in memory.

Adding up sixty thousand bins takes longer than everything else about a month by day, and those of
yesterday hardly ever change. Invariant: what is remembered of a day is what its rows say in any
snapshot in which they are these rows. They are told by their sums and by the transactions that
wrote them (`xmin`), whose sum grows with every change of a row.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

MOST: Final = 500
"""Days, of some 20 kB each."""

Key = tuple[str | None, str | None, datetime]
"""Project, workflow, day."""
Bins = Mapping[int, int]


class RememberedDays:
    """Safe to be shared by threads; the days that were asked for least recently are forgotten."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._days: OrderedDict[Key, tuple[Any, Bins]] = OrderedDict()

    def get(self, key: Key, version: Any) -> Bins | None:
        """The day's histogram, if its rows are still those."""
        with self._lock:
            found = self._days.get(key)
            if found is None or found[0] != version:
                return None
            self._days.move_to_end(key)
            return found[1]

    def put(self, key: Key, version: Any, bins: Bins) -> None:
        """What these rows say."""
        with self._lock:
            self._days[key] = (version, bins)
            self._days.move_to_end(key)
            if len(self._days) > self._most:
                self._days.popitem(last=False)

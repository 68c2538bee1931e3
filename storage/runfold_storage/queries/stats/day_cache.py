"""Cache the figures of days that no longer change, and sums of them.

Adding up the sixty thousand bins of a month takes longer than everything else about it, and past
days hardly ever change. Invariant: a cached day equals what its rows contain in every snapshot that
has these rows. A version identifies the rows: their number, the number of runs they count, and
hashes of the transactions that wrote them (`xmin`).
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from datetime import datetime
from itertools import count
from typing import Any, Final

from .aggregate import Aggregate, merged

MAX_BYTES: Final = 28 * 1024 * 1024
"""Memory for days and sums of them: some thousand with wide histograms."""

DayKey = tuple[str | None, str | None, str, datetime]
"""Project, workflow, time zone, start of the day."""

_BYTES_PER_AGGREGATE: Final = 2_000
_BYTES_PER_BIN: Final = 110
_BYTES_PER_KEY_ITEM: Final = 40


class DayCache:
    """Thread-safe; evicts the least recently used days and sums beyond `max_bytes`.

    A day that is found unchanged counts as complete: it gets a number, and sums are cached by the
    numbers of their days. A day that changes all the time gets none, so that it does not invalidate
    the sum of the others.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[Hashable, tuple[Any, Aggregate, int]] = OrderedDict()

    def get(self, key: Hashable, version: Any) -> Aggregate | None:
        """Return the day if its rows have this version; do not add to it."""
        with self._lock:
            cached, aggregate, _ = self._entries.get(key, (None, None, 0))
            if aggregate is None or cached != version:
                return None
            self._entries.move_to_end(key)
            if aggregate.number is None:
                aggregate.complete(next(self._numbers))
            return aggregate

    def put(self, key: tuple[Any, ...], version: Any, aggregate: Aggregate) -> None:
        """Cache the figures of a day's rows; do not add to them afterwards."""
        size = _BYTES_PER_AGGREGATE + _BYTES_PER_BIN * len(aggregate.bins)
        size += sum(2 * len(each) if isinstance(each, str) else _BYTES_PER_KEY_ITEM for each in key)
        with self._lock:
            _, _, replaced = self._entries.pop(key, (None, None, 0))
            self._entries[key] = (version, aggregate, size)
            self._bytes += size - replaced
            while self._bytes > self._max_bytes:
                _, (_, _, evicted) = self._entries.popitem(last=False)
                self._bytes -= evicted

    def merged(self, aggregates: Iterable[Aggregate]) -> Aggregate:
        """Return the sum; the sum of the complete days is cached."""
        complete: dict[int, Aggregate] = {}
        others: list[Aggregate] = []
        for aggregate in aggregates:
            if aggregate.number is None:
                others.append(aggregate)
            else:
                complete[aggregate.number] = aggregate
        if len(complete) <= 1:
            return merged([*complete.values(), *others])
        key = tuple(sorted(complete))
        whole = self.get(key, None)
        if whole is None:
            whole = merged(complete.values())
            self.put(key, None, whole)
        return merged([whole, *others])

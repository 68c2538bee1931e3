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
from typing import Any, Final, Generic, TypeVar

from .aggregate import Aggregate, merged

MAX_BYTES: Final = 24 * 1024 * 1024
"""Memory for days: some thousand of them with wide histograms."""
MAX_SUM_BYTES: Final = 4 * 1024 * 1024
"""Memory for sums of days."""

DayKey = tuple[str | None, str | None, str, datetime]
"""Project, workflow, time zone, start of the day."""

_BYTES_PER_AGGREGATE: Final = 2_000
_BYTES_PER_BIN: Final = 110
_BYTES_PER_NUMBER: Final = 40

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class DayCache:
    """Thread-safe; evicts the least recently used days beyond `max_bytes`.

    A day that is found unchanged counts as complete: it gets a number, and sums are cached by the
    numbers of their days. A day that changes all the time gets none, so that it does not invalidate
    the sum of the others.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, max_sum_bytes: int = MAX_SUM_BYTES) -> None:
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._days: _SizedCache[DayKey, tuple[Any, Aggregate]] = _SizedCache(max_bytes)
        self._sums: _SizedCache[tuple[int, ...], Aggregate] = _SizedCache(max_sum_bytes)

    def get(self, key: DayKey, version: Any) -> Aggregate | None:
        """Return the day if its rows have this version; do not add to it."""
        with self._lock:
            found = self._days.get(key)
            if found is None or found[0] != version:
                return None
            aggregate = found[1]
            if aggregate.number is None:
                aggregate.complete(next(self._numbers))
            return aggregate

    def put(self, key: DayKey, version: Any, aggregate: Aggregate) -> None:
        """Cache the figures of a day's rows; do not add to them afterwards."""
        names = sum(2 * len(name) for name in key[:3] if name is not None)
        with self._lock:
            self._days.put(key, (version, aggregate), names + _size(aggregate))

    def merged(self, aggregates: Iterable[Aggregate]) -> Aggregate:
        """Return the sum; the sum of the complete days is cached."""
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
                return found
        made = merged(complete.values())
        with self._lock:
            if made.number is None:
                made.complete(next(self._numbers))
            self._sums.put(key, made, _BYTES_PER_NUMBER * len(key) + _size(made))
        return made


class _SizedCache(Generic[K, V]):
    """The most recently used entries, up to a total size in bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def put(self, key: K, value: V, size: int) -> None:
        _, replaced = self._entries.pop(key, (None, 0))
        self._entries[key] = (value, size)
        self._bytes += size - replaced
        while self._bytes > self._max_bytes:
            _, (_, evicted) = self._entries.popitem(last=False)
            self._bytes -= evicted


def _size(aggregate: Aggregate) -> int:
    """Return about how many bytes an aggregate takes, with its key and version."""
    return _BYTES_PER_AGGREGATE + _BYTES_PER_BIN * len(aggregate.bins)

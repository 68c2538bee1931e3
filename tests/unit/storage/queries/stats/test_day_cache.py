"""Cached days are valid only while their rows are the same, and bounded in bytes."""

import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from runfold_storage.queries.stats.aggregate import Aggregate
from runfold_storage.queries.stats.day_cache import DayCache

DAY = datetime(2026, 11, 20, tzinfo=UTC)


def aggregate_of(*durations_ms: int) -> Aggregate:
    """Return the aggregate of runs with these durations (below 10 ms), each in a bin of its own."""
    made = Aggregate()
    for duration_ms in durations_ms:
        made.counts["completed"] += 1
        made.duration_count += 1
        made.sum_us += duration_ms * 1000
        made.add_bins([350 + duration_ms], [1])
    return made


def test_a_changed_version_is_a_miss() -> None:
    """Figures of rows that have changed since are not returned."""
    days = DayCache()
    key = ("acme", None, "UTC", DAY)
    assert days.get(key, (1,)) is None
    older, newer = aggregate_of(1), aggregate_of(1, 2)
    days.put(key, (1,), older)
    assert days.get(key, (1,)) is older
    assert days.get(key, (2,)) is None
    days.put(key, (2,), newer)
    assert days.get(key, (1,)) is None
    assert days.get(key, (2,)) is newer


def test_the_least_recently_used_day_is_evicted() -> None:
    """A day that was read lately stays."""
    days = DayCache(max_bytes=5000)  # two days
    first, second, third = ((None, None, "UTC", DAY + timedelta(days=n)) for n in range(3))
    aggregates = [aggregate_of(n) for n in range(3)]
    days.put(first, 1, aggregates[0])
    days.put(second, 1, aggregates[1])
    assert days.get(first, 1) is aggregates[0]
    days.put(third, 1, aggregates[2])
    assert days.get(second, 1) is None
    assert days.get(first, 1) is aggregates[0]
    assert days.get(third, 1) is aggregates[2]


def test_days_are_bounded_by_their_memory() -> None:
    """Many days with wide histograms and long names take about as much as the cache may hold."""
    tracemalloc.start()
    try:
        days = DayCache(max_bytes=2_300_000)
        for n in range(300):
            for workflow in ("w" * 200, None):
                key = (f"project-{n}", workflow, "Europe/Berlin", DAY - timedelta(days=n))
                made = Aggregate()
                made.add_bins(range(800), (1000 + n + offset for offset in range(800)))
                days.put(key, (n, n + 1000, n + 2000), made)
                found = days.get(key, (n, n + 1000, n + 2000))
                assert found is made
                days.merged([made, found])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.2 * 2_300_000


def test_sums_are_complete() -> None:
    """Sums include all days, cached or not, complete or not; the days are not changed."""
    days = DayCache()
    yesterday, today = aggregate_of(1, 2), aggregate_of(3)
    older = [aggregate_of(n) for n in range(4, 8)]
    for n, each in enumerate((yesterday, *older)):
        days.put((None, None, "UTC", DAY - timedelta(days=n)), 1, each)
        assert days.get((None, None, "UTC", DAY - timedelta(days=n)), 1) is each
    for given, durations_ms in (
        ([yesterday, *older], [1, 2, 4, 5, 6, 7]),
        ([yesterday, *older], [1, 2, 4, 5, 6, 7]),
        ([today, yesterday, *older], [1, 2, 3, 4, 5, 6, 7]),
        ([yesterday, *older[:3], today], [1, 2, 3, 4, 5, 6]),
        ([today], [3]),
        ([yesterday], [1, 2]),
        ([], []),
    ):
        found, expected = days.merged(given), aggregate_of(*durations_ms)
        assert found.bins == expected.bins
        assert found.counts == expected.counts
        assert found.durations() == expected.durations()
    today.add_bins([358], [1])  # what is not complete goes on
    today.duration_count += 1
    assert days.merged([yesterday, today]).bins == aggregate_of(1, 2, 3, 8).bins
    assert yesterday.bins == aggregate_of(1, 2).bins


def test_a_changing_day_does_not_invalidate_the_sum_of_the_others() -> None:
    """A day that changes between queries is in no cached sum."""
    days = DayCache()
    older = [aggregate_of(n) for n in range(3)]
    for n, each in enumerate(older):
        days.put((None, None, "UTC", DAY - timedelta(days=n + 1)), 1, each)
        days.get((None, None, "UTC", DAY - timedelta(days=n + 1)), 1)
    first = days.merged(older)
    for version in range(2, 6):
        today = aggregate_of(*range(3, 3 + version))
        days.put((None, None, "UTC", DAY), version, today)
        found = days.merged([*older, today])
        assert found.bins == aggregate_of(*range(3 + version)).bins
        assert days.get((None, None, "UTC", DAY), version - 1) is None
    assert days.merged(older) is first


def test_complete_aggregates_are_frozen() -> None:
    """Threads share them, so adding to one is an error."""
    made = aggregate_of(1)
    made.complete(1)
    with pytest.raises(AssertionError):
        made.add_bins([1], [1])
    with pytest.raises(AssertionError):
        made.merge(aggregate_of(2))

"""Aggregates of rollups: sums, minimum and maximum, percentiles."""

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest

from runfold_storage.queries.stats.aggregate import Aggregate, DurationFigures
from runfold_storage.records.histogram import bin_of


def row(status: str, durations_us: list[int]) -> Any:
    """Return a row of sums."""
    return SimpleNamespace(
        status=status,
        n=len(durations_us),
        duration_count=len(durations_us),
        duration_sum_us=sum(durations_us),
        duration_min_us=min(durations_us, default=None),
        duration_max_us=max(durations_us, default=None),
        input_tokens=1,
        output_tokens=2,
        cost_nano_usd=3,
    )


def aggregate_of(status: str, durations_us: list[int]) -> Aggregate:
    """Return the aggregate of one row with its histogram."""
    made = Aggregate()
    made.add(row(status, durations_us))
    for duration_us in durations_us:
        made.add_bins([bin_of(duration_us)], [1])
    return made


def test_percentiles_within_one_percent() -> None:
    """Merged from many rows, a percentile is within 1% of the true one."""
    chance = random.Random(7)
    durations = [round(math.exp(chance.uniform(0, 18))) for _ in range(5000)]
    whole = Aggregate()
    for start in range(0, 5000, 100):
        whole.merge(aggregate_of("completed", durations[start : start + 100]))
    durations.sort()
    figures = whole.durations()
    for found, fraction in ((figures.p50, 0.5), (figures.p90, 0.9), (figures.p99, 0.99)):
        true_ms = durations[math.ceil(fraction * 5000) - 1] / 1000
        assert found == pytest.approx(true_ms, rel=0.0101)


def test_percentiles_stay_between_the_extremes() -> None:
    """One duration is its own percentile, exactly."""
    figures = aggregate_of("completed", [1_234_567]).durations()
    assert figures == DurationFigures(*[1234.567] * 7)


def test_zero_is_a_duration() -> None:
    """A run that took no time is the shortest; its duration is not unknown."""
    whole = aggregate_of("completed", [0])
    whole.merge(aggregate_of("completed", [5000]))
    assert whole.durations().min == 0
    assert whole.durations().p50 == 0


def test_nothing_timed() -> None:
    """Without any duration, all figures of durations are null."""
    assert Aggregate().durations() == DurationFigures()

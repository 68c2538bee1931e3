"""A log-scale histogram of durations: rows can be merged for percentiles of any time range.

After Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
relative-error guarantees" (VLDB 2019): bin i holds the values in (γ^(i-1), γ^i] with
γ = (1+α)/(1-α), and its estimate 2γ^i/(γ+1) is within α of each of them.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Final

RELATIVE_ERROR: Final = 0.01

_GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
LOG_GAMMA: Final = math.log(_GAMMA)
ZERO_BIN: Final = -1


def bin_of(duration_us: int) -> int:
    """Return the bin of a duration in microseconds; -1 is the bin of zero."""
    if duration_us <= 0:
        return ZERO_BIN
    return math.ceil(math.log(duration_us) / LOG_GAMMA)


def value_of(index: int) -> float:
    """Return the estimate of a bin's durations in microseconds."""
    if index == ZERO_BIN:
        return 0.0
    return 2 * math.exp(index * LOG_GAMMA) / (_GAMMA + 1)


def percentiles(counts: Mapping[int, int], fractions: Iterable[float]) -> list[float | None]:
    """Return these percentiles in microseconds, within 1%; None if the histogram is empty.

    A percentile is one of the values, as with PostgreSQL's `percentile_disc`.
    """
    indices = sorted(counts)
    reached = list(accumulate(map(counts.__getitem__, indices)))
    total = reached[-1] if reached else 0
    if total <= 0:
        return [None for _ in fractions]
    ranks = (max(math.ceil(fraction * total), 1) for fraction in fractions)
    return [value_of(indices[bisect_left(reached, rank)]) for rank in ranks]

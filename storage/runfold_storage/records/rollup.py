"""A rollup: its key, its values, and the delta of a change."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from msgspec import Struct

from .histogram import bin_of

ROLLUP_KEY: Final = ("workflow", "project", "node", "hour", "status", "shard")
ROLLUP_SUMS: Final = (
    *("duration_count", "duration_sum_us", "input_tokens", "output_tokens", "cost_nano_usd"),
)
ROLLUP_VALUES: Final = (
    *("n", "duration_count", "duration_min_us", "duration_max_us", "duration_sum_us"),
    *("input_tokens", "output_tokens", "cost_nano_usd", "bins", "bin_counts"),
)
"""The columns of `rollups_hourly` in the order of the archive, of encoding and of `as_row`."""


@dataclass(slots=True)
class RollupValues:
    """The values of a rollup row; `bins` counts durations by bin of the histogram."""

    n: int = 0
    duration_count: int = 0
    duration_min_us: int | None = None
    duration_max_us: int | None = None
    duration_sum_us: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int = 0
    bins: dict[int, int] = field(default_factory=dict)

    @classmethod
    def from_row(cls, row: Iterable[Any]) -> Self:
        """Return the values of a row of `ROLLUP_VALUES`, in which bins may repeat."""
        n, timed, least, most, total, tokens_in, tokens_out, cost, bins, counts = row
        histogram: dict[int, int] = {}
        for index, count in zip(bins, counts, strict=True):
            histogram[index] = histogram.get(index, 0) + count
        present = {index: count for index, count in histogram.items() if count}
        sums = int(total), int(tokens_in), int(tokens_out), int(cost)
        return cls(int(n), int(timed), least, most, *sums, present)

    def as_row(self) -> tuple[Any, ...]:
        """Return the values in the order of `ROLLUP_VALUES`."""
        numbers = (getattr(self, name) for name in ROLLUP_VALUES[:-2])
        return (*numbers, list(self.bins), list(self.bins.values()))

    def add_duration(self, duration_us: int, count: int) -> None:
        """Add `count` durations of this length."""
        shortest, longest = self.duration_min_us, self.duration_max_us
        self.duration_count += count
        self.duration_min_us = duration_us if shortest is None else min(shortest, duration_us)
        self.duration_max_us = duration_us if longest is None else max(longest, duration_us)
        self.duration_sum_us += duration_us * count
        index = bin_of(duration_us)
        self.bins[index] = self.bins.get(index, 0) + count

    def merge(self, delta: "RollupDelta") -> None:
        """Add a delta that removes no durations."""
        self.n += delta.n
        self.input_tokens += delta.input_tokens
        self.output_tokens += delta.output_tokens
        self.cost_nano_usd += delta.cost_nano_usd
        for duration_us, count in delta.durations.items():
            self.add_duration(duration_us, count)


NO_VALUES: Final = RollupValues()


class RollupKey(NamedTuple):
    """One rollup row; `node` is '' for the runs themselves, `hour_us` the start of the hour."""

    workflow: str
    project: str
    node: str
    hour_us: int
    status: str
    shard: int


RollupScope = tuple[str, str, int, int]
"""(workflow, project, hour in µs, shard): what the rollups of a run and of its nodes share."""


def rollup_scope(key: RollupKey) -> RollupScope:
    """Return the scope of a rollup."""
    return key.workflow, key.project, key.hour_us, key.shard


class RollupDelta(Struct, gc=False):
    """What to add to one rollup row: new values minus old ones.

    `durations` has, for each duration in microseconds, how often it was added minus how often it
    was removed; sums and histogram follow from it. A minimum cannot be subtracted from, so after a
    removal the row's minimum and maximum have to be looked up.
    """

    n: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int = 0
    durations: dict[int, int] = {}

    @property
    def is_nonzero(self) -> bool:
        """Return whether adding it changes a row."""
        return bool(self.n or self.input_tokens or self.output_tokens or self.cost_nano_usd) or any(
            self.durations.values()
        )

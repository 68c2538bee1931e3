"""A rollup: its key, its values, and the difference that a change makes."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from msgspec import Struct

from .histogram import bin_of


@dataclass(slots=True)
class RollupValues:
    """What a rollup row holds beside its key; `bins` counts durations by bin of the histogram."""

    n: int = 0
    duration_count: int = 0
    duration_min_us: int | None = None
    duration_max_us: int | None = None
    duration_sum_us: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int = 0
    bins: dict[int, int] = field(default_factory=dict)

    def add_duration(self, duration_us: int, count: int) -> None:
        """So many more of this length."""
        shortest, longest = self.duration_min_us, self.duration_max_us
        self.duration_count += count
        self.duration_min_us = duration_us if shortest is None else min(shortest, duration_us)
        self.duration_max_us = duration_us if longest is None else max(longest, duration_us)
        self.duration_sum_us += duration_us * count
        index = bin_of(duration_us)
        self.bins[index] = self.bins.get(index, 0) + count


NO_VALUES: Final = RollupValues()


class RollupKey(NamedTuple):
    """One rollup row; `node` is '' for the runs themselves, `hour_us` the start of the hour."""

    workflow: str
    project: str
    node: str
    hour_us: int
    status: str
    shard: int


class RollupDelta(Struct, gc=False):
    """What to add to one rollup row: new minus old.

    `durations` counts, for each duration in microseconds, how often it came minus how often it
    was taken back; sums and histogram follow from it. A minimum cannot be subtracted from, so
    where one was taken back (`has_removals`) the row's extremes have to be looked up again.
    """

    n: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int = 0
    durations: dict[int, int] = {}

    @property
    def has_removals(self) -> bool:
        return any(count < 0 for count in self.durations.values())

    @property
    def changes(self) -> bool:
        return bool(self.n or self.input_tokens or self.output_tokens or self.cost_nano_usd) or any(
            self.durations.values()
        )

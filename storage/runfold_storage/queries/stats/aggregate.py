"""Add rollup rows up, and derive durations and usage from the sums (`records.histogram`)."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from msgspec import UNSET, Struct, UnsetType

from runfold_storage.read_models.summaries import UsageTotals, to_ms, usage_of
from runfold_storage.records.histogram import percentiles
from runfold_storage.tables import RUN_STATUSES

_PERCENTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))


class DurationFigures(Struct, frozen=True):
    """Milliseconds, over runs that have ended and have a duration."""

    avg: float | None = None
    min: float | None = None
    max: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(slots=True, eq=False)
class Aggregate:
    """Sums over any number of rollup rows."""

    counts: Counter[str] = field(default_factory=Counter)
    duration_count: int = 0
    sum_us: int = 0
    shortest_us: int | None = None
    longest_us: int | None = None
    amounts: list[int] = field(default_factory=lambda: [0, 0, 0])
    bins: dict[int, int] = field(default_factory=dict)
    number: int | None = None
    """Set once the aggregate is complete."""
    _durations: DurationFigures | None = None

    def complete(self, number: int) -> None:
        """Freeze the aggregate under its own number, and compute its percentiles once."""
        self._durations = self.durations()
        self.number = number

    @property
    def counts_something(self) -> bool:
        """Whether any count is positive; an unmerged delta may cancel the last one."""
        return any(n > 0 for n in self.counts.values())

    def add(self, row: Any) -> None:
        """Add a row of sums: of one status (`status`, `n`), or with a column for each status."""
        assert self.number is None
        if hasattr(row, "status"):
            self.counts[row.status] += int(row.n)
        else:
            for status in RUN_STATUSES:
                self.counts[status] += int(getattr(row, status))
        self.duration_count += int(row.duration_count)
        self.sum_us += int(row.duration_sum_us)
        if row.duration_count > 0:
            self._widen(row.duration_min_us, row.duration_max_us)
        for i, sum_ in enumerate((row.input_tokens, row.output_tokens, row.cost_nano_usd)):
            self.amounts[i] += int(sum_)

    def add_figures(self, row: Any) -> None:
        """Add a row of `sql.figures`: sums, or a histogram."""
        if row.bins is None:
            self.add(row)
        else:
            self.add_bins(row.bins, row.ns)

    def add_bins(self, indices: Iterable[int], counts: Iterable[int]) -> None:
        """Add many bins."""
        assert self.number is None
        bins = self.bins
        for index, count in zip(indices, counts, strict=True):
            bins[index] = bins.get(index, 0) + count

    def merge(self, other: "Aggregate") -> None:
        """Add everything that another aggregate holds."""
        assert self.number is None
        self.counts.update(other.counts)
        self.duration_count += other.duration_count
        self.sum_us += other.sum_us
        self._widen(other.shortest_us, other.longest_us)
        for i, amount in enumerate(other.amounts):
            self.amounts[i] += amount
        if self.bins:
            self.add_bins(other.bins.keys(), other.bins.values())
        else:
            self.bins = dict(other.bins)

    def durations(self) -> DurationFigures:
        """Return the durations in the units of the contract; all null without any duration."""
        if self._durations is not None:
            return self._durations
        if self.duration_count <= 0:
            return DurationFigures()
        values_us = percentiles(self.bins, [fraction for _, fraction in _PERCENTILES])
        return DurationFigures(
            avg=round(self.sum_us / self.duration_count) / 1000,
            min=to_ms(self.shortest_us),
            max=to_ms(self.longest_us),
            **{
                name: self._within(value_us)
                for (name, _), value_us in zip(_PERCENTILES, values_us, strict=True)
            },
        )

    def _within(self, value_us: float | None) -> float | None:
        if value_us is None:
            return None
        # The estimate of a bin may lie outside the values counted in it.
        if self.shortest_us is not None:
            value_us = max(value_us, self.shortest_us)
        if self.longest_us is not None:
            value_us = min(value_us, self.longest_us)
        return round(value_us) / 1000

    def _widen(self, shortest_us: int | None, longest_us: int | None) -> None:
        if shortest_us is not None and (self.shortest_us is None or shortest_us < self.shortest_us):
            self.shortest_us = shortest_us
        if longest_us is not None and (self.longest_us is None or longest_us > self.longest_us):
            self.longest_us = longest_us


def merged(aggregates: Iterable[Aggregate]) -> Aggregate:
    """Return the sum of all; a single aggregate is returned itself."""
    given = list(aggregates)
    if len(given) == 1:
        return given[0]
    whole = Aggregate()
    for aggregate in given:
        whole.merge(aggregate)
    return whole


class StatsSummary(Struct, frozen=True, kw_only=True):
    """The figures of a set of runs, or of node attempts."""

    total: int
    completed: int
    failed: int
    cancelled: int
    running: int
    queued: int | UnsetType = UNSET
    lost: int | UnsetType = UNSET
    pending: int | UnsetType = UNSET
    skipped: int | UnsetType = UNSET
    success_rate: float | None
    duration_ms: DurationFigures
    usage: UsageTotals


class BucketFigures(StatsSummary, frozen=True, kw_only=True):
    """The figures of runs whose first event lies in the bucket that begins at `start`."""

    start: datetime


class GroupFigures(StatsSummary, frozen=True, kw_only=True):
    """The figures of one group; the field that the answer is grouped by names it."""

    workflow: str | UnsetType | None = UNSET
    """Null, like the project, for runs without a beginning."""
    project: str | UnsetType | None = UNSET
    node: str | UnsetType = UNSET
    status: str | UnsetType = UNSET
    error_type: str | UnsetType = UNSET
    buckets: list[BucketFigures] | UnsetType = UNSET


def figures_of(aggregate: Aggregate, *, is_nodes: bool = False) -> dict[str, Any]:
    """Return the fields of `StatsSummary`; runs and nodes have different statuses."""
    counts = aggregate.counts
    further = ("pending", "skipped") if is_nodes else ("queued", "lost")
    ended = sum(counts.get(status, 0) for status in ("completed", "failed", "cancelled", "lost"))
    return {
        "total": sum(counts.values()),
        **{
            status: counts.get(status, 0)
            for status in ("completed", "failed", "cancelled", "running", *further)
        },
        "success_rate": counts.get("completed", 0) / ended if ended else None,
        "duration_ms": aggregate.durations(),
        "usage": usage_of(*aggregate.amounts),
    }

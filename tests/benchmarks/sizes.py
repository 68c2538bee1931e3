"""How much is measured: `--quick` in a minute or two, by default in some six, `--full` in an hour.

A figure of a smaller size is a hint, not the figure that its goal means: a short burst pays the
worker's start with few events. The report says which size it was.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Sizes:
    """Counts of runs (10 events each), of events and of seconds; see `goals` for the figures."""

    name: str
    repeats: int
    paced_events: int
    producer_runs: int
    flood_runs: int
    burst_runs: int
    json_runs: int
    orm_events: int
    sustained_runs: int
    latency_s: float
    deleted_runs: int
    growth_base_runs: int
    growth_burst_runs: int
    growth_top_runs: int
    read_base_runs: int
    read_top_runs: int
    read_rounds: int
    watchers: int


QUICK: Final = Sizes(
    name="quick",
    repeats=2,
    paced_events=3_000,
    producer_runs=5_000,
    flood_runs=20_000,
    burst_runs=15_000,
    json_runs=2_000,
    orm_events=200,
    sustained_runs=0,
    latency_s=3.0,
    deleted_runs=5_000,
    growth_base_runs=1_000,
    growth_burst_runs=1_000,
    growth_top_runs=10_000,
    read_base_runs=1_000,
    read_top_runs=10_000,
    read_rounds=50,
    watchers=200,
)
DEFAULT: Final = Sizes(
    name="default",
    repeats=3,
    paced_events=8_000,
    producer_runs=50_000,
    flood_runs=20_000,
    burst_runs=100_000,
    json_runs=20_000,
    orm_events=500,
    sustained_runs=0,
    latency_s=9.0,
    deleted_runs=50_000,
    growth_base_runs=10_000,
    growth_burst_runs=10_000,
    growth_top_runs=100_000,
    read_base_runs=10_000,
    read_top_runs=100_000,
    read_rounds=300,
    watchers=1_000,
)
FULL: Final = Sizes(
    name="full",
    repeats=5,
    paced_events=50_000,
    producer_runs=100_000,
    flood_runs=100_000,
    burst_runs=100_000,
    json_runs=50_000,
    orm_events=1_000,
    sustained_runs=1_000_000,
    latency_s=30.0,
    deleted_runs=50_000,
    growth_base_runs=10_000,
    growth_burst_runs=30_000,
    growth_top_runs=3_000_000,
    read_base_runs=100_000,
    read_top_runs=1_000_000,
    read_rounds=300,
    watchers=1_000,
)

"""Every figure of `make bench`, in the order of its table, with its unit and its goal.

Goals are for a machine with two cores and the default or full sizes; a figure without one is there
to judge the others by. A peak is judged by its worst repeat, everything else by its median.
"""

from dataclasses import dataclass
from typing import Final

from benchmarks.figures import Figures


@dataclass(frozen=True, slots=True)
class Figure:
    """`at_least` or `at_most` is the goal, if there is one."""

    name: str
    meaning: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    by_worst: bool = False

    @property
    def goal(self) -> float | None:
        """The number to reach."""
        return self.at_most if self.at_least is None else self.at_least

    def judged(self, figures: Figures) -> float | None:
        """The value that is judged; None when it was not measured."""
        values = figures.values(self.name)
        return max(values) if self.by_worst and values else figures.median(self.name)

    def verdict(self, value: float) -> str:
        """`met` or `missed`, and by how much of the goal."""
        if self.goal is None:
            return ""
        if not self.goal:
            return "met" if self.is_met(value) else "missed"
        if self.is_met(value):
            return f"met, {abs(value / self.goal - 1):.0%} to spare"
        if self.at_least is not None:
            return f"missed, {1 - value / self.goal:.0%} short"
        return f"missed, {value / self.goal - 1:.0%} over"

    def is_met(self, value: float) -> bool:
        """True for a figure without a goal."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is None or value <= self.at_most


_RATE: Final = "events/s"

FIGURES: Final = (
    Figure("emit.thread_us_p50", "emit, CPU of a busy runner's thread, p50", "µs", at_most=1),
    Figure("emit.thread_us_p99", "emit, CPU of a busy runner's thread, p99", "µs", at_most=5),
    Figure("emit.floor_us_p50", "– one append to a deque instead, p50", "µs"),
    Figure("emit.floor_us_p99", "– one append to a deque instead, p99", "µs"),
    Figure("emit.idle_us_p50", "– the same of a runner that slept, p50", "µs"),
    Figure("emit.idle_us_p99", "– the same of a runner that slept, p99", "µs"),
    Figure("emit.wall_us_p50", "emit, wall clock, p50", "µs"),
    Figure("emit.wall_us_p99", "emit, wall clock, p99", "µs"),
    Figure("emit.saturated_thread_us", "emit, runner's thread, saturated, mean", "µs"),
    Figure("emit.process_us", "emit, whole process, saturated, mean", "µs", at_most=3),
    Figure("producer.events_per_s", "one process into Redis, flushed", _RATE, at_least=250_000),
    Figure("producer.xadd_per_s", "raw pipelined XADD of the same frames", _RATE),
    Figure("producer.to_xadd", "producer ÷ raw XADD", "ratio"),
    Figure("flood.dropped", "a flood of 3-node runs, dropped", "events", at_most=0, by_worst=True),
    Figure("flood.not_sent", "– not in Redis after the flush", "events", at_most=0, by_worst=True),
    Figure("flood.events_per_s", "– accepted by the runner", _RATE),
    Figure("fold.warm_events_per_s", "fold, a burst, warm", _RATE, at_least=200_000),
    Figure("fold.first_commit_ms", "– from its start to its first commit", "ms"),
    Figure("fold.cold_events_per_s", "fold, a burst, cold page cache", _RATE, at_least=120_000),
    Figure("sustained.events_per_s", "fold, sustained over 10 million", _RATE, at_least=120_000),
    Figure("json.events_per_s", "fold, JSON frames of one event", _RATE, at_least=80_000),
    Figure("copy.rows_per_s", "raw COPY of the same events", "rows/s"),
    Figure("fold.to_copy", "fold ÷ raw COPY", "ratio", at_least=0.6),
    Figure("fold.xadd_per_s", "raw pipelined XADD of the burst", _RATE),
    Figure("fold.to_xadd", "fold ÷ raw XADD", "ratio"),
    Figure("orm.events_per_s", "an ORM that commits each event", _RATE),
    Figure("fold.to_orm", "fold ÷ ORM", "ratio"),
    Figure("fold.worker_cpu_us", "fold, CPU of the worker, an event", "µs"),
    Figure("fold.postgresql_cpu_us", "fold, CPU of PostgreSQL, an event", "µs"),
    Figure("fold.redis_cpu_us", "fold, CPU of Redis, an event", "µs"),
    Figure("fold.others_share", "fold, CPU that others took, of all cores", "ratio"),
    Figure("latency.5000_p50_ms", "XADD → row visible, 5,000/s, p50", "ms"),
    Figure("latency.5000_p99_ms", "XADD → row visible, 5,000/s, p99", "ms", at_most=15),
    Figure("latency.50000_p50_ms", "XADD → row visible, 50,000/s, p50", "ms"),
    Figure("latency.50000_p99_ms", "XADD → row visible, 50,000/s, p99", "ms", at_most=30),
    Figure("live.5000_p50_ms", "XADD → SSE client, 5,000/s, p50", "ms"),
    Figure("live.5000_p99_ms", "XADD → SSE client, 5,000/s, p99", "ms", at_most=50),
    Figure("live.fan_out_p50_ms", "XADD → the last of 1,000 clients, 200/s, p50", "ms"),
    Figure("live.fan_out_p99_ms", "XADD → the last of 1,000 clients, 200/s, p99", "ms"),
    Figure("live.watcher_kb", "API, memory of a watcher", "KiB"),
    Figure("deletion.alone_p50_ms", "XADD → row visible, 3,000/s, p50", "ms"),
    Figure("deletion.alone_p99_ms", "XADD → row visible, 3,000/s, p99", "ms"),
    Figure("deletion.beside_p50_ms", "– while other runs are deleted, p50", "ms"),
    Figure("deletion.beside_p99_ms", "– while other runs are deleted, p99", "ms"),
    Figure("deletion.ratio", "– p99 while runs are deleted ÷ without", "ratio", at_most=3),
    Figure("deletion.runs_per_s", "– runs deleted", "runs/s"),
    Figure("deletion.worker_mb", "– worker, peak memory", "MB", at_most=400, by_worst=True),
    Figure("bytes.redis", "Redis, an event", "bytes", at_most=200),
    Figure("bytes.postgresql", "PostgreSQL with indexes, an event", "bytes", at_most=520),
    Figure("bytes.wal", "WAL, an event", "bytes", at_most=620),
    Figure("worker.peak_rss_mb", "worker, peak memory", "MB", at_most=400, by_worst=True),
    Figure("growth.base_events_per_s", "fold into a small history", _RATE),
    Figure("growth.top_events_per_s", "fold into a large history", _RATE),
    Figure("growth.ratio", "fold, large ÷ small history", "ratio", at_least=0.8),
    Figure("read.sql_p99_ms", "reads, each one's p99 in SQL", "ms", at_most=2, by_worst=True),
    Figure("read.http_p99_ms", "– over HTTP", "ms", at_most=10, by_worst=True),
    Figure("read.growth", "– p50 with ten times the runs", "ratio", at_most=1.5, by_worst=True),
    Figure("bounded.sql_p99_ms", "filters that match next to nothing, p99 in SQL", "ms"),
    Figure("bounded.http_p99_ms", "– over HTTP", "ms"),
    Figure("bounded.growth", "– p50 with ten times the runs", "ratio"),
)

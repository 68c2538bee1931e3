"""The Prometheus series of a worker.

Updated once a batch, or once a second by the monitor, never for each event. Labels are shards and
fixed words, so the number of series is bounded. Every worker has a registry of its own.
"""

from collections.abc import Callable, Iterable, Iterator
from http.server import HTTPServer
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from runfold.delivery.spool_drain import read_spool
from runfold_storage.checkpoints.streams import Lag
from runfold_storage.records.rows import Batch


class SpoolCollector(Collector):
    """Series of a spool folder: events of all runners of this machine, for any Redis."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing, so that registering does not read the folder."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the folder now; yield no series if it cannot be read."""
        try:
            state = read_spool(self._folder, None, self._max_bytes)
        except OSError:
            return
        for name, text, value in (
            ("events", "Events that wait in the spool of this machine", state.other_redis.events),
            ("bytes", "Size of the spool of this machine", state.size),
            ("max_bytes", "RUNFOLD_SPOOL_BYTES", self._max_bytes),
            ("damaged_segments", "Segments that cannot be read to their end", len(state.damaged)),
        ):
            yield GaugeMetricFamily(f"runfold_spool_{name}", text, value)


PHASES: Final = ("wait", "read", "decode", "fold", "write", "commit")
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_EVENTS: Final = (1, 10, 100, 1000, 3000, 10_000, 30_000, 100_000)


class Metrics:
    """The series of one worker; safe to use from its threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._events = self._counter("events_folded", "Events that are new to the ledger", "shard")
        self._frames = self._counter("frames_folded", "Frames folded", "shard")
        self._dead_letters = self._counter("dead_letters", "Events or frames refused", "shard")
        self._ignored = self._counter(
            "events_ignored",
            "Events of runs that were deleted, or whose payloads have expired",
            *("shard", "reason"),
        )
        recalls = self._counter(
            "runs_recalled",
            "Runs that a frame touched: cached (hit), new, or read from the ledger (miss)",
            "result",
        )
        self._recalls = [recalls.labels(result) for result in ("hit", "new", "miss")]
        self.restarts = self._counter("restarts", "Starts over from the committed positions")
        self.refolded = self._counter(
            "batches_refolded", "Batches folded again because runs were changed behind the fold"
        )
        self.rebased = self._counter(
            "batches_rebased",
            "Batches written again because other runs of their shards were changed",
        )
        self.incidents = self._counter("incidents", "Incidents that this worker met", "kind")
        self.lost = self._counter("runs_lost", "Runs that were found silent for too long")
        self._batch_events = Histogram(
            "runfold_worker_batch_events",
            "New events of a batch",
            registry=self.registry,
            buckets=_EVENTS,
        )
        phases = Histogram(
            "runfold_worker_phase_seconds",
            "Time a batch takes, by phase; `wait` is idle time",
            ["phase"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.phases = {phase: phases.labels(phase) for phase in PHASES}
        self._lag = {
            unit: Gauge(f"runfold_worker_lag_{unit}", text, ["shard"], registry=self.registry)
            for unit, text in (
                ("frames", "Frames that wait in the stream"),
                ("events", "Events that wait, estimated by the frames of the last batch"),
                ("seconds", "How long the oldest waiting frame has waited"),
            )
        }
        self._per_frame: dict[int, float] = {}

    def folded(self, batch: Batch) -> None:
        """Count a committed batch."""
        self._batch_events.observe(sum(batch.new_events.values()))
        for step in batch.advances:
            events = batch.new_events.get(step.shard, 0)
            self._events.labels(step.shard).inc(events)
            self._frames.labels(step.shard).inc(step.consumed)
            self._per_frame[step.shard] = max(1.0, events / step.consumed)
        for letter in batch.dead_letters:
            self._dead_letters.labels(letter.shard).inc()
        for labels, number in batch.ignored.items():
            self._ignored.labels(*labels).inc(number)

    def recalled(self, hits: int, new: int, misses: int) -> None:
        """Count where a batch found its runs."""
        for counter, number in zip(self._recalls, (hits, new, misses), strict=True):
            counter.inc(number)

    def set_lag(self, shard: int, lag: Lag) -> None:
        """Set the lag of a shard."""
        self._lag["frames"].labels(shard).set(lag.frames)
        self._lag["events"].labels(shard).set(round(lag.frames * self._per_frame.get(shard, 1.0)))
        self._lag["seconds"].labels(shard).set(lag.age_s)

    def remove_lag(self, shards: Iterable[int]) -> None:
        """Remove the lag of shards that other workers fold now."""
        for shard in shards:
            for gauge in self._lag.values():
                try:
                    gauge.remove(shard)
                except KeyError:  # not set yet
                    continue

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"runfold_worker_{name}", text, labels, registry=self.registry)


def serve_metrics(metrics: Metrics, host: str, port: int) -> tuple[str, Callable[[], None]]:
    """Serve `GET /metrics` at a port (0: a free one); return the URL and what stops it."""
    server: HTTPServer
    server, thread = start_http_server(port, host, metrics.registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{server.server_address[1]}/metrics", stop

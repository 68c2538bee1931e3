"""What the API knows, for Prometheus: its requests, and how the deployment is.

Requests are counted as they end. Lag, incidents and dead letters are read from Redis and PostgreSQL
when someone asks, so that they are there also while no worker runs; a server that is away costs
only the series that come from it.
"""

import time
from collections.abc import Iterator
from typing import Any, Final, cast

import redis
from litestar.enums import ScopeType
from litestar.types import HTTPScope, LifeSpanScope, Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from runfold.errors import RunfoldError
from runfold_api.ingest.stream_writer import StreamWriter
from runfold_api.live.broker import Broker
from runfold_api.web.run_paths import RunPathsApp
from runfold_storage.errors import StorageError
from runfold_storage.history import History

_SECONDS: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class RequestMetrics:
    """Counts requests by route, never by path, which would be a series for each run."""

    def __init__(self, feed: Broker) -> None:
        self.registry = CollectorRegistry()
        watchers = Gauge("runfold_api_watchers", "Streams that are open", registry=self.registry)
        watchers.set_function(lambda: feed.watchers)
        self._requests = Counter(
            "runfold_api_requests",
            "Requests that were answered; `route` is empty where there is none",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "runfold_api_request_seconds",
            "Time until a request was answered",
            ["route"],
            registry=self.registry,
            buckets=_SECONDS,
        )

    def answered(self, method: str, route: str, status: int, took_s: float) -> None:
        """A request has come to its end."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, status).inc()
        if not route.endswith("/live"):  # a stream takes as long as somebody watches
            self._seconds.labels(route).observe(took_s)


class MeteredApp(RunPathsApp):
    """Counts every request, also those that no route takes."""

    def __init__(self, *arguments: Any, metrics: RequestMetrics, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._metrics = metrics

    async def __call__(self, scope: Scope | LifeSpanScope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        if scope["type"] != ScopeType.HTTP:
            await super().__call__(scope, receive, send)
            return
        status = 500
        began = time.perf_counter()

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await super().__call__(scope, receive, note)
        finally:
            http = cast("HTTPScope", scope)
            route = str(http.get("path_template") or "")
            took_s = time.perf_counter() - began
            self._metrics.answered(http["method"], route, status, took_s)


def exposition(metrics: RequestMetrics, history: History, writer: StreamWriter) -> bytes:
    """The text that Prometheus reads."""
    return generate_latest(metrics.registry) + generate_latest(_Deployment(history, writer))


class _Deployment(CollectorRegistry):
    """How the deployment is at this moment."""

    def __init__(self, history: History, writer: StreamWriter) -> None:
        super().__init__()
        self._history = history
        self._writer = writer

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "runfold_server_up", "Whether a server answers this API", labels=["server"]
        )
        try:
            yield from self._from_database()
            up.add_metric(["postgresql"], 1)
        except StorageError:
            up.add_metric(["postgresql"], 0)
        try:
            yield from self._from_streams()
            up.add_metric(["redis"], 1)
        except (redis.RedisError, RunfoldError):
            up.add_metric(["redis"], 0)
        except StorageError:  # of Redis nothing is known then
            pass
        yield up

    def _from_database(self) -> Iterator[Metric]:
        incidents = CounterMetricFamily(
            "runfold_incidents", "What must not happen and did", labels=["kind", "shard"]
        )
        new = GaugeMetricFamily(
            "runfold_incidents_new", "The part that nobody has taken note of", labels=["kind"]
        )
        of_kind: dict[str, int] = {}
        for incident in self._history.incidents():
            shard = "" if incident.shard is None else str(incident.shard)
            incidents.add_metric([incident.kind, shard], incident.number)
            of_kind[incident.kind] = of_kind.get(incident.kind, 0) + incident.new
        for kind, number in of_kind.items():
            new.add_metric([kind], number)
        yield incidents
        yield new
        dead = self._history.count_dead_letters()
        yield GaugeMetricFamily("runfold_dead_letters", "Dead letters that are kept", dead)

    def _from_streams(self) -> Iterator[Metric]:
        frames = GaugeMetricFamily(
            "runfold_lag_frames", "Frames that wait to be folded", labels=["shard"]
        )
        seconds = GaugeMetricFamily(
            "runfold_lag_seconds", "How long the oldest of them has waited", labels=["shard"]
        )
        for shard, lag in self._writer.lags(self._history).items():
            frames.add_metric([str(shard)], lag.frames)
            seconds.add_metric([str(shard)], lag.age_s)
        yield frames
        yield seconds

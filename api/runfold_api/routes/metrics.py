"""Prometheus metrics: the requests of this process and the state of the deployment.

Lag, incidents and dead letters are read at each scrape, so they are available while no worker runs.
If one server is down, only its series are missing. Label values come from fixed sets.
"""

import collections
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import redis
from litestar import Litestar
from litestar.enums import ScopeType
from litestar.types import HTTPScope, LifeSpanScope, Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runfold.errors import RunfoldError
from runfold_api.ingest.stream_writer import StreamWriter
from runfold_api.live.broker import Broker
from runfold_api.web.run_paths import encode_run
from runfold_storage.errors import StorageError
from runfold_storage.history import History

_SECONDS: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class RequestMetrics:
    """Counts requests by route, because a path would be a series for each run."""

    def __init__(self, broker: Broker, deployment: "Deployment") -> None:
        self.registry = CollectorRegistry()
        self.registry.register(deployment)
        streams = Gauge("runfold_api_watchers", "Open streams", registry=self.registry)
        streams.set_function(lambda: broker.streams)
        self._requests = Counter(
            "runfold_api_requests",
            "Answered requests; `route` is empty for unknown paths",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "runfold_api_request_seconds",
            "Duration of requests",
            ["route"],
            registry=self.registry,
            buckets=_SECONDS,
        )

    def count(self, method: str, route: str, status: int, took_s: float) -> None:
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, status).inc()
        if not route.endswith("/live"):  # a stream lasts until its client leaves
            self._seconds.labels(route).observe(took_s)


class Application(Litestar):
    """Passes run ids to its routes as one segment, and counts every request."""

    def __init__(self, *arguments: Any, metrics: RequestMetrics, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._metrics = metrics

    async def __call__(self, scope: Scope | LifeSpanScope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        if scope["type"] != ScopeType.HTTP:
            await super().__call__(scope, receive, send)
            return
        http = cast("HTTPScope", scope)
        encode_run(http)
        status = 500
        began = time.perf_counter()

        async def send_and_record(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await super().__call__(scope, receive, send_and_record)
        finally:
            route = str(http.get("path_template") or "")
            took_s = time.perf_counter() - began
            self._metrics.count(http["method"], route, status, took_s)


class Deployment(Collector):
    def __init__(self, history: History, writer: StreamWriter) -> None:
        self._history = history
        self._writer = writer

    def collect(self) -> Iterator[Metric]:
        up = {}
        try:
            yield from self._from_database()
            up["postgresql"] = 1
        except StorageError:
            up["postgresql"] = 0
        try:
            yield from self._from_streams()
            up["redis"] = 1
        except (redis.RedisError, RunfoldError):
            up["redis"] = 0
        except StorageError:  # then the state of Redis is unknown
            pass
        yield _gauge("runfold_server_up", "Whether a server responds to this API", "server", up)

    def _from_database(self) -> Iterator[Metric]:
        labels = ["kind", "shard"]
        incidents = CounterMetricFamily("runfold_incidents", "Violated invariants", labels=labels)
        of_kind: collections.Counter[str] = collections.Counter()
        for incident in self._history.incidents():
            shard = "" if incident.shard is None else str(incident.shard)
            incidents.add_metric([incident.kind, shard], incident.number)
            of_kind[incident.kind] += incident.new
        yield incidents
        yield _gauge("runfold_incidents_new", "Unacknowledged incidents", "kind", of_kind)
        dead = self._history.count_dead_letters()
        yield GaugeMetricFamily("runfold_dead_letters", "Stored dead letters", dead)

    def _from_streams(self) -> Iterator[Metric]:
        lags = self._writer.lags(self._history)
        frames = {str(shard): lag.frames for shard, lag in lags.items()}
        yield _gauge("runfold_lag_frames", "Frames that wait for the fold", "shard", frames)
        ages_s = {str(shard): lag.age_s for shard, lag in lags.items()}
        yield _gauge("runfold_lag_seconds", "Wait of the oldest frame", "shard", ages_s)


def _gauge(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    gauge = GaugeMetricFamily(name, meaning, labels=[label])
    for each, value in values.items():
        gauge.add_metric([each], value)
    return gauge

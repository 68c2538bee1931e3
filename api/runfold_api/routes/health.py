"""Health checks and metrics."""

import asyncio
from functools import cache
from typing import Any

import redis
from litestar import Request, Response, route
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from runfold.errors import RunfoldError
from runfold_api.ingest.stream_writer import StreamWriter
from runfold_api.settings import Settings
from runfold_api.web.problems import RETRY_AFTER_S, respond
from runfold_storage.checkpoints.incidents import Incident
from runfold_storage.errors import SchemaOutdated, StorageError
from runfold_storage.history import History
from runfold_storage.migrate import head

from .history import METHODS, READING
from .metrics import RequestMetrics

_head = cache(head)


class Health(Struct, frozen=True):
    """`live` or `ready`."""

    status: str


class Readiness(Struct, frozen=True, omit_defaults=True):
    """`ready`, or `behind` if the oldest event has waited too long for the fold.

    Requests are served in both states, so both are a 200, also with unacknowledged incidents.
    """

    status: str
    detail: str | None = None
    waiting_s: float | None = None
    incidents: list[Incident] = []


@route("/healthz", http_method=METHODS)
async def healthz() -> Health:
    """Report that the process is alive; PostgreSQL and Redis are not checked."""
    return Health("live")


@route("/readyz", http_method=METHODS)
async def readyz(
    request: Request[Any, Any, Any],
    history: NamedDependency[History],
    writer: NamedDependency[StreamWriter],
    settings: NamedDependency[Settings],
) -> Response[Any]:
    """Check that PostgreSQL has the right schema and Redis responds; 503 with reasons if not.

    `behind`: an event has waited longer than `RUNFOLD_MAX_LAG_S` to be folded.
    """
    found = await asyncio.gather(
        asyncio.to_thread(_check_postgresql, history),
        asyncio.get_running_loop().run_in_executor(writer.executor, writer.check),
        return_exceptions=True,
    )
    errors = [each for each in found if each is not None]
    if not errors:
        try:
            checked = await asyncio.to_thread(_check_lag, history, writer, settings.max_lag_s)
            return Response(checked)
        except (StorageError, redis.RedisError) as error:
            errors = [error]
    headers = {"retry-after": str(RETRY_AFTER_S)}
    return respond(request, 503, "not-ready", "; ".join(map(_reason_of, errors)), headers=headers)


_METRICS = ResponseSpec(
    bytes, generate_examples=False, description="Prometheus' text format", media_type="text/plain"
)


@route("/metrics", **READING, responses={200: _METRICS})
def metrics(request_metrics: NamedDependency[RequestMetrics]) -> Response[bytes]:
    """Metrics for Prometheus: requests of this process, lag, incidents and dead letters."""
    return Response(generate_latest(request_metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _check_lag(history: History, writer: StreamWriter, max_lag_s: float) -> Readiness:
    incidents = [each for each in history.incidents() if each.new]
    waiting_s = max((lag.age_s for lag in writer.lags(history).values()), default=0.0)
    if waiting_s <= max_lag_s:
        return Readiness("ready", incidents=incidents)
    detail = (
        f"the oldest event has waited {waiting_s:,.1f} s to be folded: "
        "check the workers' logs and run `runfold doctor`"
    )
    return Readiness("behind", detail, round(waiting_s, 3), incidents)


def _check_postgresql(history: History) -> None:
    revision = history.revision()
    if revision != _head():
        raise SchemaOutdated(f"the schema is {revision}, not {_head()}; run: runfold migrate")


def _reason_of(error: BaseException) -> str:
    """Return the server that failed and why; raise an error of another kind."""
    if not isinstance(error, StorageError | redis.RedisError | RunfoldError):
        raise error
    server = "PostgreSQL" if isinstance(error, StorageError) else "Redis"
    return f"{server}: {' '.join(str(error).split())}"


ROUTES = [healthz, readyz, metrics]

"""Whether the process lives, and whether it can serve."""

import asyncio
from functools import cache
from typing import Any

import redis
from litestar import HttpMethod, Request, Response, route
from litestar.di import NamedDependency
from msgspec import Struct

from runfold.errors import RunfoldError
from runfold_storage.errors import SchemaOutdated, StorageError
from runfold_storage.history import History
from runfold_storage.migrate import head

from .problems import RETRY_AFTER_S, respond
from .stream_writer import StreamWriter

_METHODS = [HttpMethod.GET, HttpMethod.HEAD]


class Health(Struct, frozen=True):
    """`live` or `ready`."""

    status: str


@route("/healthz", http_method=_METHODS)
async def healthz() -> Health:
    """The process lives; says nothing of PostgreSQL and Redis."""
    return Health("live")


@route("/readyz", http_method=_METHODS)
async def readyz(
    request: Request[Any, Any, Any],
    history: NamedDependency[History],
    writer: NamedDependency[StreamWriter],
) -> Response[Any]:
    """PostgreSQL answers and has this code's schema, Redis answers; 503 with reasons if not."""
    loop = asyncio.get_running_loop()
    found = await asyncio.gather(
        loop.run_in_executor(None, _check_postgresql, history),
        loop.run_in_executor(writer.executor, _check_redis, writer),
    )
    reasons = [reason for reason in found if reason is not None]
    if not reasons:
        return Response(Health("ready"))
    headers = {"retry-after": str(RETRY_AFTER_S)}
    return respond(request, 503, "not-ready", "; ".join(reasons), headers=headers)


def _check_postgresql(history: History) -> str | None:
    try:
        revision = history.revision()
        if revision != _head():
            raise SchemaOutdated(f"the schema is {revision}, not {_head()}; run: runfold migrate")
    except StorageError as error:
        return f"PostgreSQL: {_one_line(error)}"
    return None


def _check_redis(writer: StreamWriter) -> str | None:
    try:
        writer.ping()
        writer.shards()
    except (redis.RedisError, RunfoldError) as error:
        return f"Redis: {_one_line(error)}"
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@cache
def _head() -> str | None:
    return head()


ROUTES = [healthz, readyz]

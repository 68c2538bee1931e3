"""Errors as problem details (RFC 9457): what went wrong, which parameter, and what is allowed.

Unexpected exceptions are logged and answered with a 500 without details.
"""

import logging
from http import HTTPStatus
from typing import Any, Final

import msgspec
import redis
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ExceptionHandlersMap
from msgspec import UNSET, Struct, UnsetType

from runfold.errors import ShardsDiffer
from runfold_storage.errors import (
    ArchiveUnusable,
    BadParameter,
    DatabaseUnreachable,
    FoldBehind,
    ReadTooSlow,
    SchemaOutdated,
)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1

_RETRY: Final = f"try again in {RETRY_AFTER_S} s; /readyz reports the cause"
_PREFIX: Final = "urn:runfold:problem:"
_log = logging.getLogger(__name__)


class EventProblem(Struct, frozen=True):
    """The reason why one of several events is refused; `index` counts from 0."""

    index: int
    field: str | None
    reason: str


class Problem(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The body of every error response."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    parameter: str | UnsetType = UNSET
    allowed: list[str] | UnsetType = UNSET
    events: list[EventProblem] | UnsetType = UNSET


class RequestRefused(Exception):
    """A request that cannot be served; `fields` are additional fields of the problem."""

    def __init__(self, status: int, name: str, detail: str, **fields: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.fields = fields


def run_unknown(run: str) -> RequestRefused:
    detail = (
        f"there is no run {run!r}: /api/v1/runs lists them; "
        "a new run appears once a worker has folded its first event"
    )
    return RequestRefused(404, "run-unknown", detail)


def handlers() -> ExceptionHandlersMap:
    return {
        BadParameter: _bad_parameter,
        RequestRefused: _refused,
        DatabaseUnreachable: _unavailable("database-unreachable", "PostgreSQL does not respond"),
        ArchiveUnusable: _unavailable("archive-unusable", "the archive does not respond"),
        SchemaOutdated: _unavailable("schema-outdated"),
        ReadTooSlow: _unavailable("read-too-slow"),
        FoldBehind: _unavailable("fold-behind"),
        redis.RedisError: _unavailable("redis-unreachable", "Redis accepted no events"),
        ShardsDiffer: _unavailable("shards-differ"),
        HTTPException: _http,
        Exception: _unexpected,
    }


def described(*statuses: int) -> dict[int, ResponseSpec]:
    """Return the problem responses of these statuses for the OpenAPI document."""
    return {
        status: ResponseSpec(
            Problem,
            generate_examples=False,
            description=HTTPStatus(status).phrase,
            media_type=MEDIA_TYPE,
        )
        for status in statuses
    }


def respond(
    request: Request[Any, Any, Any],
    status: int,
    name: str,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> Response[bytes]:
    problem = Problem(
        type=_PREFIX + name,
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.scope["raw_path"].decode("ascii", "replace").partition("?")[0],
        **fields,
    )
    return Response(
        msgspec.json.encode(problem), status_code=status, media_type=MEDIA_TYPE, headers=headers
    )


def _bad_parameter(request: Request[Any, Any, Any], error: BadParameter) -> Response[bytes]:
    return respond(request, 400, "bad-parameter", str(error), parameter=error.parameter)


def _refused(request: Request[Any, Any, Any], error: RequestRefused) -> Response[bytes]:
    return respond(request, error.status, error.name, str(error), **error.fields)


def _unavailable(name: str, problem: str | None = None) -> Any:
    """Return a handler for temporary errors; `problem` replaces messages with server addresses."""

    def handle(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        _log.warning("request failed", extra={"problem": name, "reason": str(error)})
        headers = {"retry-after": str(RETRY_AFTER_S)}
        detail = f"{problem}: {_RETRY}" if problem else str(error)
        return respond(request, 503, name, detail, headers=headers)

    return handle


def _http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    names = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}
    most = request.app.request_max_body_size
    details = {
        413: f"the body exceeds {most:,} bytes: send fewer events per request",
        404: "nothing exists at this path; /api/openapi.json lists all routes",
        405: f"{request.method} is not allowed here, only {(error.headers or {}).get('allow')}",
    }
    status = error.status_code
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _unexpected(request, error)
    name, detail = names.get(status, "bad-request"), details.get(status, error.detail)
    return respond(request, status, name, detail, headers=error.headers)


def _unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    fields = {"path": request.scope["path"]}
    _log.error("request failed with an unexpected error", exc_info=error, extra=fields)
    return respond(request, 500, "internal", "internal error; see the log of the API for the cause")

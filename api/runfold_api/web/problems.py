"""Errors as RFC 9457 problem details: what went wrong, which parameter, and what is allowed.

`type` is a name to branch on, `urn:runfold:problem:…`; `detail` is for a person. A request never
sees a stack or another's data: what nobody foresaw is logged here and answered with a bare 500.
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

_AGAIN: Final = f"try again in {RETRY_AFTER_S} s; /readyz tells what is wrong"
_PREFIX: Final = "urn:runfold:problem:"
_log = logging.getLogger(__name__)


class EventProblem(Struct, frozen=True):
    """What is wrong with one of several events; `index` counts from 0."""

    index: int
    field: str | None
    reason: str


class Problem(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The body of every answer that is not a success."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    parameter: str | UnsetType = UNSET
    allowed: list[str] | UnsetType = UNSET
    events: list[EventProblem] | UnsetType = UNSET


class RunUnknown(Exception):
    """There is no such run."""

    def __init__(self, run: str) -> None:
        super().__init__(
            f"there is no run {run!r}: /api/v1/runs lists them; "
            "a new one is there once a worker has folded its first event"
        )


class JobUnknown(Exception):
    """There is no such job."""

    def __init__(self, job: str) -> None:
        super().__init__(f"there is no job {job[:100]!r}: /api/v1/jobs lists them")


class BadRequest(Exception):
    """A request that cannot be answered; `fields` are further fields of its problem."""

    def __init__(self, status: int, name: str, detail: str, **fields: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.fields = fields


def handlers() -> ExceptionHandlersMap:
    """Which exception becomes which problem."""
    return {
        BadParameter: _bad_parameter,
        BadRequest: _bad_request,
        RunUnknown: _unknown("run-unknown"),
        JobUnknown: _unknown("job-unknown"),
        DatabaseUnreachable: _unavailable(
            "database-unreachable", f"no answer of PostgreSQL: {_AGAIN}"
        ),
        ArchiveUnusable: _unavailable(
            "archive-unusable", f"no answer of the archive, which may have this run: {_AGAIN}"
        ),
        SchemaOutdated: _unavailable("schema-outdated", None),
        ReadTooSlow: _unavailable("read-too-slow", None),
        FoldBehind: _unavailable("fold-behind", None),
        redis.RedisError: _unavailable("redis-unreachable", f"Redis took no events: {_AGAIN}"),
        ShardsDiffer: _unavailable("shards-differ", None),
        HTTPException: _http,
        Exception: _unforeseen,
    }


def described(*statuses: int) -> dict[int, ResponseSpec]:
    """These statuses as the OpenAPI document tells them."""
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
    """The answer for a problem."""
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


def _bad_request(request: Request[Any, Any, Any], error: BadRequest) -> Response[bytes]:
    return respond(request, error.status, error.name, str(error), **error.fields)


def _unknown(name: str) -> Any:
    def handle(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        return respond(request, 404, name, str(error))

    return handle


def _unavailable(name: str, detail: str | None) -> Any:
    """A handler for what may pass; `detail` stands in for words that name our servers."""

    def handle(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        _log.warning("a request could not be served", extra={"problem": name, "reason": str(error)})
        headers = {"retry-after": str(RETRY_AFTER_S)}
        return respond(request, 503, name, detail or str(error), headers=headers)

    return handle


def _http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    names = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}
    most = request.app.request_max_body_size
    details = {
        413: f"the body has more than {most} bytes: send fewer events in one request",
        404: "there is nothing at this path; /api/openapi.json lists what there is",
        405: f"{request.method} is not allowed here, only {(error.headers or {}).get('allow')}",
    }
    status = error.status_code
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _unforeseen(request, error)
    return respond(
        request,
        status,
        names.get(status, "bad-request"),
        details.get(status, error.detail),
        headers=error.headers,
    )


def _unforeseen(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    _log.error("a request failed", exc_info=error, extra={"path": request.scope["path"]})
    return respond(request, 500, "internal", "this is a fault of Runfold; its log has the cause")

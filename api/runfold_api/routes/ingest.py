"""The routes that accept events and executions; they answer once these are in their streams."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from litestar import Request, post
from litestar.di import NamedDependency
from msgspec import Struct

from runfold.protocol.codec import Envelope
from runfold.serialization.intake import Intake
from runfold_api.ingest.event_parser import MEDIA_TYPES, read_envelopes
from runfold_api.ingest.executions import read_execution
from runfold_api.ingest.stream_writer import StreamWriter
from runfold_api.web.problems import RequestRefused, described


class Accepted(Struct, frozen=True):
    """The number of events, and the position of the last frame of each shard.

    The events are folded once the watermark has reached `position`; a read with `wait_for` waits
    until then.
    """

    accepted: int
    position: dict[str, str]
    wait_for: str


class AcceptedExecution(Accepted, frozen=True, kw_only=True):
    """The same of an execution, with the id of its run."""

    run: str


@post("/events", status_code=202, responses=described(400, 413, 415, 503))
async def post_events(
    request: Request[Any, Any, Any],
    writer: NamedDependency[StreamWriter],
    intake: NamedDependency[Intake],
) -> Accepted:
    """Accept one event, an array of events, or one event per line."""
    media_type = _check_media(request, MEDIA_TYPES)
    body = await request.body()

    def accept() -> Accepted:
        return Accepted(*_append(writer, read_envelopes(body, media_type, intake)))

    return await asyncio.get_running_loop().run_in_executor(writer.executor, accept)


@post("/executions", status_code=202, responses=described(400, 413, 415, 503))
async def post_execution(
    request: Request[Any, Any, Any],
    writer: NamedDependency[StreamWriter],
    intake: NamedDependency[Intake],
) -> AcceptedExecution:
    """Accept a whole execution with its nodes."""
    _check_media(request, MEDIA_TYPES[:1])
    body = await request.body()

    def accept() -> AcceptedExecution:
        run, envelopes = read_execution(body, intake)
        return AcceptedExecution(*_append(writer, envelopes), run=run)

    return await asyncio.get_running_loop().run_in_executor(writer.executor, accept)


def _check_media(request: Request[Any, Any, Any], allowed: Sequence[str]) -> str:
    """Return the media type; pages of other sites cannot send these without a CORS preflight."""
    media_type = request.content_type[0]
    if media_type not in allowed:
        detail = f"content-type: expected one of {', '.join(allowed)}, got {media_type!r}"
        raise RequestRefused(415, "unsupported-media-type", detail, allowed=list(allowed))
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        detail = f"content-encoding: {encoding!r} is not supported, send the body as it is"
        raise RequestRefused(415, "unsupported-encoding", detail)
    return media_type


def _append(writer: StreamWriter, envelopes: Sequence[Envelope]) -> tuple[int, dict[str, str], str]:
    """Return the fields of `Accepted`."""
    position = writer.append(envelopes) if envelopes else {}
    return len(envelopes), position, ",".join(f"{shard}:{at}" for shard, at in position.items())


ROUTES: Final = [post_events, post_execution]

"""The route that takes events: answered once they are in their streams."""

import asyncio
from dataclasses import dataclass
from typing import Any

from litestar import Request, post
from litestar.di import NamedDependency
from litestar.openapi.spec import (
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
)
from msgspec import Struct

from runfold.codec import TYPES
from runfold.events import MAX_NAME

from .bodies import MEDIA_TYPES, read_envelopes
from .problems import BadRequest, described
from .stream_writer import StreamWriter


class Accepted(Struct, frozen=True):
    """How many events are in the streams, and the position of the last frame of each shard.

    They are folded once the watermark's `position` has reached it.
    """

    accepted: int
    position: dict[str, str]


@dataclass
class TakesEvents(Operation):
    """The body in the OpenAPI document; the handler reads it as it comes."""

    def __post_init__(self) -> None:
        one = Schema(
            type=OpenAPIType.OBJECT,
            required=["type", "run", "at"],
            properties={
                "type": Schema(enum=list(TYPES)),
                "run": Schema(type=OpenAPIType.STRING, max_length=MAX_NAME),
                "id": Schema(type=OpenAPIType.INTEGER),
                "at": Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME),
                "v": Schema(type=OpenAPIType.INTEGER),
            },
            additional_properties=True,
        )
        any_number = Schema(one_of=[one, Schema(type=OpenAPIType.ARRAY, items=one)])
        lines = Schema(type=OpenAPIType.STRING, description="One event a line.")
        content = {"application/json": OpenAPIMediaType(schema=any_number)}
        content |= {kind: OpenAPIMediaType(schema=lines) for kind in MEDIA_TYPES[1:]}
        self.request_body = RequestBody(content=content, required=True)


@post(
    "/events",
    status_code=202,
    operation_class=TakesEvents,
    responses=described(400, 413, 415, 503),
)
async def post_events(
    request: Request[Any, Any, Any], writer: NamedDependency[StreamWriter]
) -> Accepted:
    """One event, an array of events, or one event a line."""
    media_type = request.content_type[0]
    # Only types that a page of another site cannot send without asking (CORS preflight).
    if media_type not in MEDIA_TYPES:
        detail = f"content-type: expected one of {', '.join(MEDIA_TYPES)}, got {media_type!r}"
        raise BadRequest(415, "unsupported-media-type", detail, allowed=list(MEDIA_TYPES))
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        detail = f"content-encoding: {encoding!r} is not supported, send the body as it is"
        raise BadRequest(415, "unsupported-encoding", detail)
    body = await request.body()
    return await asyncio.get_running_loop().run_in_executor(
        writer.executor, _accept, writer, body, media_type
    )


def _accept(writer: StreamWriter, body: bytes, media_type: str) -> Accepted:
    envelopes = read_envelopes(body, media_type)
    return Accepted(len(envelopes), writer.append(envelopes))

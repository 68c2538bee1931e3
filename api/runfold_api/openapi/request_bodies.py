"""The request bodies of the ingest routes, whose handlers read raw bytes."""

from dataclasses import dataclass
from typing import get_args

from litestar.openapi.spec import (
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
)

from runfold.protocol.codec import TYPES
from runfold.protocol.events import MAX_NAME, NodeEnd
from runfold_api.ingest.event_parser import MEDIA_TYPES
from runfold_api.ingest.executions import Status


@dataclass
class TakesEvents(Operation):
    """One event, an array of events, or one event per line."""

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
        any_number = Schema(one_of=[one, Schema(type=OpenAPIType.ARRAY, items=one, min_items=1)])
        lines = Schema(type=OpenAPIType.STRING, description="One event per line.")
        content = {"application/json": OpenAPIMediaType(schema=any_number)}
        content |= {kind: OpenAPIMediaType(schema=lines) for kind in MEDIA_TYPES[1:]}
        self.request_body = RequestBody(content=content, required=True)


@dataclass
class TakesExecution(Operation):
    """An execution with its nodes."""

    def __post_init__(self) -> None:
        text = Schema(type=OpenAPIType.STRING)
        name = Schema(type=OpenAPIType.STRING, min_length=1, max_length=MAX_NAME)
        time = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME)
        length = Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=1e14)
        dollars = Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=1e6)
        count = Schema(type=OpenAPIType.INTEGER, minimum=0, maximum=10**12)
        anything = Schema(description="JSON of any shape.")
        common = {
            "name": name,
            "started_at": time,
            "finished_at": time,
            "duration_ms": length,
            "inputs": anything,
            "outputs": anything,
            "error": Schema(one_of=[text, _object(type=text, message=text, stack=text, node=text)]),
            "usage": _object(input_tokens=count, output_tokens=count, cost_usd=dollars),
            "attempt": Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=32_767),
        }
        node = Schema(
            type=OpenAPIType.OBJECT,
            required=["node"],
            properties={
                **common,
                "node": name,
                "node_type": name,
                "parents": Schema(type=OpenAPIType.ARRAY, items=name),
                "status": Schema(enum=list(get_args(NodeEnd))),
            },
            additional_properties=False,
        )
        names = ("id", "workflow", "project", "user", "session", "parent_run")
        texts = ("reason", "stdout", "stderr")
        del common["name"]
        execution = Schema(
            type=OpenAPIType.OBJECT,
            required=["workflow"],
            properties={
                **common,
                **dict.fromkeys(names, name),
                **dict.fromkeys(texts, text),
                "queued_at": time,
                "status": Schema(enum=list(get_args(Status))),
                "trigger": Schema(one_of=[name, _object(type=name, data=anything)]),
                "tags": Schema(
                    type=OpenAPIType.OBJECT,
                    property_names=name,
                    additional_properties=Schema(
                        type=[
                            OpenAPIType.STRING,
                            OpenAPIType.NUMBER,
                            OpenAPIType.BOOLEAN,
                            OpenAPIType.NULL,
                        ]
                    ),
                ),
                "metadata": anything,
                "exit_code": Schema(type=OpenAPIType.INTEGER, minimum=-(2**31), maximum=2**31 - 1),
                "nodes": Schema(type=OpenAPIType.ARRAY, items=node),
                "save": Schema(type=OpenAPIType.BOOLEAN),
            },
            additional_properties=False,
        )
        content = {"application/json": OpenAPIMediaType(schema=execution)}
        self.request_body = RequestBody(content=content, required=True)


def _object(**properties: Schema) -> Schema:
    return Schema(type=OpenAPIType.OBJECT, properties=dict(properties))

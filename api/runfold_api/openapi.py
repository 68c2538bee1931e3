"""The OpenAPI 3.1 document at `/api/openapi.json`, without a page that loads scripts elsewhere.

Litestar derives it from the routes; `_refine` adds limits that Python types cannot express and the
bodies that routes read as raw bytes. A test sends what it allows and forbids to every route.
"""

from copy import deepcopy
from importlib.metadata import version
from typing import Any, Final

import msgspec
from litestar import Request, Router
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition
from msgspec import Raw

from runfold.protocol.codec import TYPES
from runfold.protocol.events import MAX_NAME
from runfold_storage.filters.catalogue import FILTERS, Kind
from runfold_storage.filters.validation import MAX_BOUND, MAX_TAG, MAX_TAGS
from runfold_storage.jobs import STATUSES as JOB_STATUSES
from runfold_storage.queries.runs.export_formats import FORMATS
from runfold_storage.queries.stats.query import BUCKETS, GROUPS
from runfold_storage.tables import RUN_STATUSES

from .ingest.event_parser import MEDIA_TYPES
from .ingest.executions import Execution

PATH: Final = "/api/openapi.json"

_NAME: Final = {"minLength": 1, "maxLength": MAX_NAME, "pattern": "^[^\\u0000]*$"}
_TAG: Final = {"type": "string", "maxLength": MAX_TAG, "pattern": "^[^\\u0000:=]+[:=][^\\u0000]*$"}
_BOUND: Final = {"minimum": 0, "maximum": MAX_BOUND}
_FILTER_SHAPES: Final[dict[Kind, dict[str, Any]]] = {
    Kind.NAME: _NAME,
    Kind.STATUSES: {"items": {"type": "string", "enum": list(RUN_STATUSES)}},
    Kind.TAGS: {"maxItems": MAX_TAGS, "items": _TAG},
    Kind.TIME: {},
    Kind.DURATION: _BOUND,
    Kind.COST: _BOUND,
    Kind.SEARCH: _NAME,
    Kind.PAYLOAD: _NAME,
}
_POSITION: Final = "[0-9]{1,4}:[0-9]{1,20}-[0-9]{1,20}"
_SHAPES: Final[dict[str, dict[str, Any]]] = {
    **{each.name: _FILTER_SHAPES[each.kind] for each in FILTERS},
    "node": _NAME,
    "types": {"items": {"type": "string", "enum": list(TYPES)}},
    "bucket": {"enum": list(BUCKETS)},
    "group_by": {"enum": list(GROUPS)},
    "format": {"enum": list(FORMATS)},
    "wait_for": {"pattern": f"^({_POSITION}(,{_POSITION})*)?$"},
}
_STREAMED: Final = {
    "/api/v1/export": [kind for kind, _ in FORMATS.values()],
    "/api/v1/live": ["text/event-stream"],
    "/api/v1/runs/{run}/live": ["text/event-stream"],
}

_EVENT: Final = {
    "type": "object",
    "required": ["type", "run", "at"],
    "properties": {
        "type": {"enum": list(TYPES)},
        "run": {"type": "string", "maxLength": MAX_NAME},
        "id": {"type": "integer"},
        "at": {"type": "string", "format": "date-time"},
        "v": {"type": "integer"},
    },
}
_EVENTS: Final = {"oneOf": [_EVENT, {"type": "array", "items": _EVENT, "minItems": 1}]}
_LINES: Final = {"type": "string", "description": "One event per line."}
(_EXECUTION,), _POSTED = msgspec.json.schema_components(
    [Execution], ref_template="#/components/schemas/Posted{name}"
)
_BODIES: Final = {
    "/api/v1/events": dict.fromkeys(MEDIA_TYPES, _LINES) | {MEDIA_TYPES[0]: _EVENTS},
    "/api/v1/executions": {MEDIA_TYPES[0]: _EXECUTION},
}


class RawSchemaPlugin(OpenAPISchemaPlugin):
    """Describes payloads: JSON of any shape, except null, which stands for an absent payload."""

    @staticmethod
    def is_plugin_supported_type(value: Any) -> bool:
        return value is Raw

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Schema:  # noqa: ARG002, Litestar's signature
        kinds = [OpenAPIType(each) for each in ("object", "array", "string", "number", "boolean")]
        return Schema(type=kinds, description="JSON of any shape, as it was sent")


class _Document(JsonRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return self.render_json(request, _refine(deepcopy(openapi_schema)))


def openapi_config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Runfold",
        version=version("runfold"),
        description="Execution history: push events, read runs, nodes and statistics.",
        use_handler_docstrings=True,
        render_plugins=[_Document(path="/")],
        # Litestar adds pages below the router's path; answer 404 for them.
        openapi_router=Router(
            PATH, route_handlers=[], include_in_schema=False, before_request=_only_the_document
        ),
    )


def _only_the_document(request: Request[Any, Any, Any]) -> None:
    if request.scope["path"] != PATH:
        raise NotFoundException


def _refine(document: dict[str, Any]) -> dict[str, Any]:
    paths = document["paths"]
    for item in paths.values():
        for operation in item.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "query":
                    parameter["schema"] = _refined(parameter["name"], parameter["schema"])
    for path, kinds in _STREAMED.items():
        content = {kind: {"schema": {"type": "string"}} for kind in kinds}
        paths[path]["get"]["responses"]["200"]["content"] = content
    for path, schemas in _BODIES.items():
        body = {kind: {"schema": schema} for kind, schema in schemas.items()}
        paths[path]["post"]["requestBody"] = {"required": True, "content": body}
    document["components"]["schemas"] |= {f"Posted{name}": each for name, each in _POSTED.items()}
    return document


def _refined(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the shape of a query parameter: it may be left out, but it is never null."""
    for kind in schema.pop("oneOf", ()):
        if kind != {"type": "null"}:
            schema |= kind
    if name == "status" and schema["type"] == "string":
        return schema | {"enum": list(JOB_STATUSES)}
    return schema | _SHAPES.get(name, {})

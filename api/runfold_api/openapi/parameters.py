"""What query parameters may be, in the OpenAPI document: more than their Python types tell.

The checks themselves are in `runfold_storage`, for all who read; this only tells them to clients.
"""

from typing import Any, Final

from runfold.protocol.codec import TYPES
from runfold.protocol.events import MAX_NAME
from runfold_storage.filters.catalogue import FILTERS, Kind
from runfold_storage.filters.validation import MAX_BOUND, MAX_TAG, MAX_TAGS
from runfold_storage.jobs import STATUSES as JOB_STATUSES
from runfold_storage.queries.runs.export_formats import FORMATS
from runfold_storage.queries.stats.query import BUCKETS, GROUPS
from runfold_storage.tables import RUN_STATUSES

_NAME: Final = {"minLength": 1, "maxLength": MAX_NAME, "pattern": "^[^\\u0000]*$"}
_BOUND: Final = {"minimum": 0, "maximum": MAX_BOUND}
_TAGS: Final = {
    "maxItems": MAX_TAGS,
    "items": {
        "type": "string",
        "maxLength": MAX_TAG,
        "pattern": "^[^\\u0000:=]+[:=][^\\u0000]*$",
    },
}
_FILTER_SHAPES: Final[dict[Kind, dict[str, Any]]] = {
    Kind.NAME: _NAME,
    Kind.STATUSES: {"items": {"type": "string", "enum": list(RUN_STATUSES)}},
    Kind.TAGS: _TAGS,
    Kind.TIME: {},
    Kind.DURATION: _BOUND,
    Kind.COST: _BOUND,
    Kind.SEARCH: _NAME,
    Kind.PAYLOAD: _NAME,
}

_SHAPES: Final[dict[str, dict[str, Any]]] = {
    **{each.name: _FILTER_SHAPES[each.kind] for each in FILTERS},
    "node": _NAME,
    "types": {"items": {"type": "string", "enum": list(TYPES)}},
    "bucket": {"enum": list(BUCKETS)},
    "group_by": {"enum": list(GROUPS)},
    "format": {"enum": list(FORMATS)},
    "wait_for": {
        "pattern": "^([0-9]{1,4}:[0-9]{1,20}-[0-9]{1,20}(,[0-9]{1,4}:[0-9]{1,20}-[0-9]{1,20})*)?$"
    },
}


_STREAMED: Final = {
    "/api/v1/export": [kind for kind, _ in FORMATS.values()],
    "/api/v1/live": ["text/event-stream"],
    "/api/v1/runs/{run}/live": ["text/event-stream"],
}


def refine(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the shapes in it; a query parameter may be left out, but is never null."""
    for item in document["paths"].values():
        for operation in item.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "query":
                    parameter["schema"] = _refined(parameter["name"], parameter["schema"])
    for path, kinds in _STREAMED.items():
        answer = document["paths"][path]["get"]["responses"]["200"]
        answer["content"] = {kind: {"schema": {"type": "string"}} for kind in kinds}
    return document


def _refined(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    kinds = [kind for kind in schema.pop("oneOf", ()) if kind != {"type": "null"}]
    for kind in kinds:
        schema |= kind
    if name == "status" and schema["type"] == "string":
        return schema | {"enum": list(JOB_STATUSES)}
    return schema | _SHAPES.get(name, {})

"""Query parameters: how they are described, and that none is misspelt.

A filter that is silently ignored gives a wrong answer that looks right; so a parameter that is
unknown, or given twice where one is meant, is an error that names those that exist.
"""

import re
from typing import Annotated, Any, Final

from litestar import Request
from litestar.openapi.spec import OpenAPIFormat
from litestar.params import QueryParameter

from runfold_storage.filters import MAX_LIMIT, MAX_OFFSET

from .problems import BadRequest

_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")
_TIME: Final = {"format": OpenAPIFormat.DATE_TIME}

Project = Annotated[str | None, QueryParameter(description="Only this project.")]
Workflow = Annotated[str | None, QueryParameter(description="Only this workflow.")]
Statuses = Annotated[
    list[str] | None,
    QueryParameter(description="One or several statuses, repeated or separated by commas."),
]
Types = Annotated[
    list[str] | None,
    QueryParameter(description="Only events of these types, repeated or separated by commas."),
]
StartedAfter = Annotated[
    str | None,
    QueryParameter(description="Started at this time or later.", schema_extra=_TIME),
]
StartedBefore = Annotated[
    str | None, QueryParameter(description="Started before this time.", schema_extra=_TIME)
]
Since = Annotated[
    str | None,
    QueryParameter(description="From this time on, rounded down to the hour.", schema_extra=_TIME),
]
Until = Annotated[
    str | None,
    QueryParameter(description="Up to this time, rounded up to the hour.", schema_extra=_TIME),
]
Bucket = Annotated[
    str | None, QueryParameter(description="Also by hour, day, week or month, in UTC.")
]
GroupBy = Annotated[
    str | None,
    QueryParameter(description="Also by workflow, project or status; or node: attempts at nodes."),
]
Limit = Annotated[int, QueryParameter(description="How many at most.", ge=1, le=MAX_LIMIT)]
EventLimit = Annotated[int, QueryParameter(description="How many at most.", ge=1, le=1000)]
Offset = Annotated[
    int, QueryParameter(description="How many to skip; not with a cursor.", ge=0, le=MAX_OFFSET)
]
Cursor = Annotated[str | None, QueryParameter(description="The `next_cursor` of the page before.")]


ExportFormat = Annotated[str, QueryParameter(description="`csv`, `ndjson` or `parquet`.")]
WithNodes = Annotated[bool, QueryParameter(description="Also the runs' attempts at nodes.")]


def split_words(values: list[str] | None) -> list[str] | None:
    """`a,b` and `a&…b` are the same."""
    if values is None:
        return None
    return [word for value in values for word in value.split(",")]


def check_query(request: Request[Any, Any, Any]) -> None:
    """Raise `BadRequest` for a parameter that the route does not have, or has once."""
    given: dict[str, int] = {}
    for name, _ in request.query_params.multi_items():
        given[name] = given.get(name, 0) + 1
    if not given:
        return
    known = _known(request)
    fields = request.route_handler.parsed_fn_signature.parameters
    for name, times in given.items():
        if name not in known:
            allowed = sorted(known)
            detail = f"{name[:100]}: unknown parameter; known are {', '.join(allowed) or 'none'}"
            raise BadRequest(
                400, "unknown-parameter", detail, parameter=name[:100], allowed=allowed
            )
        if times > 1 and not known[name]:
            raise BadRequest(400, "bad-parameter", f"{name}: given {times} times", parameter=name)
        if fields[name].annotation in (int, int | None) and not _WHOLE.fullmatch(
            request.query_params[name]
        ):
            raise BadRequest(  # what would be read as a number all the same, as 1e2 is
                400, "bad-parameter", f"{name}: expected a whole number", parameter=name
            )


def _known(request: Request[Any, Any, Any]) -> dict[str, bool]:
    """The route's query parameters, and whether each may be repeated."""
    known = {}
    for name, field in request.route_handler.parsed_fn_signature.parameters.items():
        if isinstance(field.kwarg_definition, QueryParameter):
            known[name] = field.is_non_string_sequence
    return known

"""The query parameters of the routes: types, bounds, and descriptions for the OpenAPI document."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import Parameter, Signature
from typing import Annotated, Any, Final

from litestar.openapi.spec import OpenAPIFormat
from litestar.params import QueryParameter

from runfold_storage.errors import FoldBehind
from runfold_storage.filters.catalogue import FILTERS, Filter, Kind
from runfold_storage.history import POLL_S, History
from runfold_storage.parameters import MAX_LIMIT, MAX_OFFSET, parse_time
from runfold_storage.read_models.watermarks import fold_behind, missing_shards, parse_positions

_TIME: Final = {"format": OpenAPIFormat.DATE_TIME}

Project = Annotated[str | None, QueryParameter(description="Only this project.")]
Workflow = Annotated[str | None, QueryParameter(description="Only this workflow.")]
Types = Annotated[
    list[str] | None,
    QueryParameter(description="Only events of these types, repeated or separated by commas."),
]
EndedSince = Annotated[
    str | None, QueryParameter(description="Ended at this time or later.", schema_extra=_TIME)
]
EndedUntil = Annotated[
    str | None, QueryParameter(description="Ended before this time.", schema_extra=_TIME)
]
WaitFor = Annotated[
    str | None,
    QueryParameter(
        description="The `wait_for` of a write's response: shard:position, comma-separated. "
        "The read waits up to 10 s until the write is folded; then it is a 503."
    ),
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
    str | None,
    QueryParameter(
        description="Also per hour; per day, week or month in the time zone `tz`; "
        "or per minute, for up to six hours."
    ),
]
GroupBy = Annotated[
    str | None,
    QueryParameter(
        description="Also per workflow, project, status, node (counts node attempts) "
        "or error_type (counts failed runs)."
    ),
]
Zone = Annotated[
    str | None, QueryParameter(description="A time zone such as Europe/Berlin; default UTC.")
]
Limit = Annotated[int, QueryParameter(description="Maximum number of results.", ge=1, le=MAX_LIMIT)]
EventLimit = Annotated[int, QueryParameter(description="Maximum number of results.", ge=1, le=1000)]
Offset = Annotated[
    int,
    QueryParameter(
        description="Number of results to skip; not with a cursor.", ge=0, le=MAX_OFFSET
    ),
]
Cursor = Annotated[
    str | None, QueryParameter(description="The `next_cursor` or `prev_cursor` of another page.")
]
After = Annotated[str | None, QueryParameter(description="The `next_cursor` of the page before.")]
Before = Annotated[str | None, QueryParameter(description="The `prev_cursor` of the page after.")]
Tail = Annotated[
    bool,
    QueryParameter(description="Return the last events instead of the first, in the same order."),
]
Node = Annotated[
    str | None,
    QueryParameter(
        description="Only events that name this node. A page may then hold fewer than `limit`, "
        "even none, and still have a cursor."
    ),
]


ExportFormat = Annotated[
    str, QueryParameter(description="The file format: csv, ndjson or parquet.")
]
WithNodes = Annotated[
    bool, QueryParameter(description="Also export the node attempts of the runs.")
]


def provide_history(history: History, max_wait_s: float) -> Callable[..., Awaitable[History]]:
    """Return a dependency that provides `history`, after the request's `wait_for` is folded.

    A waiting request holds neither a thread nor a connection between two checks.
    """

    async def once_folded(wait_for: WaitFor = None) -> History:
        if wait_for is None:
            return history
        wanted = parse_positions("wait_for", wait_for)
        until = time.monotonic() + max_wait_s
        loop = asyncio.get_running_loop()
        while missing := missing_shards(
            wanted, await loop.run_in_executor(None, history.positions)
        ):
            if time.monotonic() >= until:
                raise FoldBehind(fold_behind(missing, max_wait_s))
            await asyncio.sleep(POLL_S)
        return history

    return once_folded


def split_words(values: list[str] | None) -> list[str] | None:
    """Split comma-separated values; a repeated parameter means the same."""
    if values is None:
        return None
    return [word for value in values for word in value.split(",")]


def run_filters(**given: Any) -> dict[str, Any]:
    """Return the filters of `History.runs` and `History.export`, one parameter for each."""
    return {each.name: _parsed(each, given[each.name]) for each in FILTERS}


def _parsed(each: Filter, value: Any) -> Any:
    if each.kind is Kind.STATUSES:
        return split_words(value)
    return parse_time(each.name, value) if each.kind is Kind.TIME else value


_TYPES: Final = {
    Kind.STATUSES: list[str] | None,
    Kind.TAGS: list[str] | None,
    Kind.DURATION: float | None,
    Kind.COST: float | None,
}
_HINTS: Final = {
    Kind.STATUSES: "; several are repeated or separated by commas",
    Kind.TAGS: "; if repeated, with all of them",
    Kind.DURATION: ", in milliseconds",
}


def _annotation(each: Filter) -> Any:
    phrase = each.help[0].upper() + each.help[1:] + _HINTS.get(each.kind, "") + "."
    query = QueryParameter(
        description=f"{phrase} {each.note}".rstrip(),
        schema_extra=_TIME if each.kind is Kind.TIME else None,
        ge=0 if each.kind in (Kind.DURATION, Kind.COST) else None,
    )
    return Annotated[_TYPES.get(each.kind, str | None), query]


# Litestar reads parameters from the signature and their types from the annotations.
run_filters.__annotations__ = {each.name: _annotation(each) for each in FILTERS}
run_filters.__annotations__["return"] = dict[str, Any]
run_filters.__signature__ = Signature(  # type: ignore[attr-defined]
    [Parameter(each.name, Parameter.KEYWORD_ONLY, default=None) for each in FILTERS]
)

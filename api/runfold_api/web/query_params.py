"""The query parameters of the routes: types, bounds, and descriptions for the OpenAPI document."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import Parameter, Signature
from typing import Annotated, Any, Final

from litestar.openapi.spec import OpenAPIFormat
from litestar.params import QueryParameter as Query

from runfold_storage.errors import FoldBehind
from runfold_storage.filters.catalogue import FILTERS, Filter, Kind
from runfold_storage.history import POLL_S, History
from runfold_storage.parameters import MAX_LIMIT, MAX_OFFSET, parse_time
from runfold_storage.read_models.watermarks import fold_behind, missing_shards, parse_positions

_TIME: Final = {"format": OpenAPIFormat.DATE_TIME}
_time = partial(Query, schema_extra=_TIME)

Project = Annotated[str | None, Query(description="Only this project.")]
Workflow = Annotated[str | None, Query(description="Only this workflow.")]
EndedSince = Annotated[str | None, _time(description="Ended at this time or later.")]
EndedUntil = Annotated[str | None, _time(description="Ended before this time.")]
Since = Annotated[str | None, _time(description="From this time on, rounded down to the hour.")]
Until = Annotated[str | None, _time(description="Up to this time, rounded up to the hour.")]
Zone = Annotated[str | None, Query(description="A time zone such as Europe/Berlin; default UTC.")]
Bucket = Annotated[
    str | None,
    Query(
        description="Also per hour; per day, week or month in the time zone `tz`; "
        "or per minute, for up to six hours."
    ),
]
GroupBy = Annotated[
    str | None,
    Query(
        description="Also per workflow, project, status, node (counts node attempts) "
        "or error_type (counts failed runs)."
    ),
]
Limit = Annotated[int, Query(description="Maximum number of results.", ge=1, le=MAX_LIMIT)]
EventLimit = Annotated[int, Query(description="Maximum number of results.", ge=1, le=1000)]
Offset = Annotated[
    int, Query(description="Number of results to skip; not with a cursor.", ge=0, le=MAX_OFFSET)
]
Cursor = Annotated[
    str | None, Query(description="The `next_cursor` or `prev_cursor` of another page.")
]
After = Annotated[str | None, Query(description="The `next_cursor` of the page before.")]
Before = Annotated[str | None, Query(description="The `prev_cursor` of the page after.")]
Tail = Annotated[
    bool, Query(description="Return the last events instead of the first, in the same order.")
]
Types = Annotated[
    list[str] | None,
    Query(description="Only events of these types, repeated or separated by commas."),
]
Node = Annotated[
    str | None,
    Query(
        description="Only events that name this node. A page may then hold fewer than `limit`, "
        "even none, and still have a cursor."
    ),
]
WaitFor = Annotated[
    str | None,
    Query(
        description="The `wait_for` of a write's response: shard:position, comma-separated. "
        "The read waits up to 10 s until the write is folded; then it is a 503."
    ),
]
ExportFormat = Annotated[str, Query(description="The file format: csv, ndjson or parquet.")]
WithNodes = Annotated[bool, Query(description="Also export the node attempts of the runs.")]


def provide_history(history: History, max_wait_s: float) -> Callable[..., Awaitable[History]]:
    """Return a dependency that provides `history`, after the request's `wait_for` is folded.

    A waiting request holds neither a thread nor a connection between two checks.
    """

    async def once_folded(wait_for: WaitFor = None) -> History:
        if wait_for is None:
            return history
        wanted = parse_positions("wait_for", wait_for)
        until = time.monotonic() + max_wait_s
        while missing := missing_shards(wanted, await asyncio.to_thread(history.positions)):
            if time.monotonic() >= until:
                raise FoldBehind(fold_behind(missing, max_wait_s))
            await asyncio.sleep(POLL_S)
        return history

    return once_folded


def split_words(values: list[str] | None) -> list[str] | None:
    """Split comma-separated values; a repeated parameter means the same."""
    return None if values is None else ",".join(values).split(",")


def run_filters(**given: Any) -> dict[str, Any]:
    """Return the filters of `History.runs` and `History.export`, one parameter for each."""
    for each in FILTERS:
        if each.kind is Kind.STATUSES:
            given[each.name] = split_words(given[each.name])
        elif each.kind is Kind.TIME:
            given[each.name] = parse_time(each.name, given[each.name])
    return given


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
    query = Query(
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

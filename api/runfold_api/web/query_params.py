"""The query parameters of the routes: types, bounds, and descriptions for the OpenAPI document."""

from typing import Annotated, Any, Final

from litestar.openapi.spec import OpenAPIFormat
from litestar.params import QueryParameter

from runfold_storage.parameters import MAX_LIMIT, MAX_OFFSET, parse_time

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
Trigger = Annotated[
    str | None, QueryParameter(description="Only runs that this type of trigger set off.")
]
User = Annotated[str | None, QueryParameter(description="Only runs of this user.")]
Session = Annotated[str | None, QueryParameter(description="Only runs of this session.")]
Tags = Annotated[
    list[str] | None,
    QueryParameter(description="Only runs with this tag, key:value or key=value; repeatable."),
]
MinDuration = Annotated[
    float | None, QueryParameter(description="Took so many milliseconds or longer.", ge=0)
]
MaxDuration = Annotated[
    float | None, QueryParameter(description="Took so many milliseconds or less.", ge=0)
]
MinCost = Annotated[
    float | None, QueryParameter(description="Cost so many US dollars or more.", ge=0)
]
MaxCost = Annotated[
    float | None, QueryParameter(description="Cost so many US dollars or less.", ge=0)
]
ErrorType = Annotated[
    str | None, QueryParameter(description="Only runs that failed with this type of error.")
]
Fingerprint = Annotated[
    str | None, QueryParameter(description="Only runs that failed alike: see /api/v1/failures.")
]
ParentRun = Annotated[str | None, QueryParameter(description="Only runs that this run began.")]
Search = Annotated[
    str | None,
    QueryParameter(
        description="Only runs with this text in their workflow, id, tags, error type or message; "
        "case does not matter."
    ),
]
Payload = Annotated[
    str | None,
    QueryParameter(
        description="Only runs with this text in their inputs or outputs, of projects that have "
        "these searched; case does not matter. The first 4096 characters of runs that have ended; "
        "`searched` says how far. For lists and exports alone."
    ),
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


def split_words(values: list[str] | None) -> list[str] | None:
    """Split comma-separated values; a repeated parameter means the same."""
    if values is None:
        return None
    return [word for value in values for word in value.split(",")]


def run_filters(
    project: Project = None,
    workflow: Workflow = None,
    status: Statuses = None,
    trigger: Trigger = None,
    user: User = None,
    session: Session = None,
    tag: Tags = None,
    started_after: StartedAfter = None,
    started_before: StartedBefore = None,
    min_duration_ms: MinDuration = None,
    max_duration_ms: MaxDuration = None,
    min_cost_usd: MinCost = None,
    max_cost_usd: MaxCost = None,
    error_type: ErrorType = None,
    fingerprint: Fingerprint = None,
    parent_run: ParentRun = None,
    q: Search = None,
    payload: Payload = None,
) -> dict[str, Any]:
    """What `History.runs` and `History.export` are filtered by."""
    return {
        "project": project,
        "workflow": workflow,
        "status": split_words(status),
        "trigger": trigger,
        "user": user,
        "session": session,
        "tag": tag,
        "started_after": parse_time("started_after", started_after),
        "started_before": parse_time("started_before", started_before),
        "min_duration_ms": min_duration_ms,
        "max_duration_ms": max_duration_ms,
        "min_cost_usd": min_cost_usd,
        "max_cost_usd": max_cost_usd,
        "error_type": error_type,
        "fingerprint": fingerprint,
        "parent_run": parent_run,
        "q": q,
        "payload": payload,
    }

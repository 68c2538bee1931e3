"""The answers of lists, as frozen structs that encode to the JSON of the contract."""

from datetime import datetime
from operator import attrgetter
from typing import Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType

from runfold_storage.parameters import UNKNOWN

NANO: int = 1_000_000_000


class NodeCounts(Struct, frozen=True):
    """A run's nodes by the status of their last attempt."""

    total: int = 0
    pending: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0


class UsageTotals(Struct, frozen=True):
    """Numbers of tokens, and cost in US dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost_usd: float = 0.0


class ErrorSummary(Struct, frozen=True):
    """Why a run failed; the message is truncated to a bounded length."""

    type: str | None = None
    message: str | None = None
    node: str | None = None


class RunFacts(Struct, frozen=True, kw_only=True):
    """The fields that a run's summary and its details share.

    `incomplete`: neither `queued` nor `started` has arrived, so project and workflow are unknown.
    """

    id: str
    project: str | None
    workflow: str | None
    incomplete: bool = False
    status: str
    attempt: int
    parent_run: str | None
    trigger_type: str | None
    user: str | None
    session: str | None
    tags: dict[str, str]
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: float | None
    usage: UsageTotals
    exit_code: int | None


class RunSummary(RunFacts, frozen=True, kw_only=True):
    """One run of a list."""

    nodes: NodeCounts
    error: ErrorSummary | None


class Total(Struct, frozen=True):
    """The number of all matches, and how precise it is."""

    value: int
    relation: Literal["exact", "estimate"]


class Watermark(Struct, frozen=True):
    """How far the fold has come.

    `position` has the last folded frame of each shard. `folded_at` is the time of the newest
    folded event, and `age_s` its age by PostgreSQL's clock.
    """

    position: dict[str, str]
    folded_at: datetime | None
    age_s: float | None


class Searched(Struct, frozen=True):
    """Which payloads the search covered: those of finished runs, as of the time `up_to`.

    `behind` is the number of later changes that are not indexed yet. While older runs are still
    being indexed, only runs that began at `since` or later are covered; null means all.
    """

    up_to: datetime | None
    behind: int
    since: datetime | None


class RunPage(Struct, frozen=True):
    """Runs, newest first; `next_cursor` leads to older runs, `prev_cursor` to newer ones.

    A page may hold fewer runs than its limit, even none, and still have a `next_cursor`.
    `searched` is present when payloads were searched.
    """

    runs: list[RunSummary]
    next_cursor: str | None
    prev_cursor: str | None
    total: Total
    watermark: Watermark
    searched: Searched | UnsetType = UNSET


def run_id(row: Any) -> str:
    """Return the run's id; `row` is a row of `runs`, or the `RunRow` of a batch."""
    if row.external_id is not None:
        return str(row.external_id)
    if not isinstance(row.run, bytes):
        return str(row.run)
    key = row.run.hex()  # five times as fast as by way of a UUID
    return f"{key[:8]}-{key[8:12]}-{key[12:16]}-{key[16:20]}-{key[20:]}"


def summary_of(row: Any) -> RunSummary:
    """Convert a row of `runs`, or the `RunRow` of a batch, to a summary."""
    incomplete = row.project == UNKNOWN
    error = (row.error_type, row.error_message, row.error_node)
    return RunSummary(
        id=run_id(row),
        project=None if incomplete else row.project,
        workflow=None if incomplete else row.workflow,
        incomplete=incomplete,
        status=row.status,
        attempt=row.attempt,
        parent_run=row.parent_run,
        trigger_type=row.trigger_type,
        user=row.user,
        session=row.session,
        tags=row.tags or {},
        queued_at=row.queued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        duration_ms=to_ms(row.duration_us),
        usage=usage_of(row.input_tokens, row.output_tokens, row.cost_nano_usd),
        exit_code=row.exit_code,
        nodes=NodeCounts(*_node_counts(row)),
        error=None if error == (None, None, None) else ErrorSummary(*error),
    )


_node_counts: Final = attrgetter(*(f"nodes_{name}" for name in NodeCounts.__struct_fields__))


def usage_of(input_tokens: int, output_tokens: int, cost_nano_usd: int) -> UsageTotals:
    """Convert stored sums (numeric ones too) to the units of the contract."""
    tokens_in, tokens_out = int(input_tokens), int(output_tokens)
    return UsageTotals(tokens_in, tokens_out, tokens_in + tokens_out, int(cost_nano_usd) / NANO)


def to_ms(duration_us: int | None) -> float | None:
    """Convert microseconds to milliseconds, keeping the fraction."""
    return None if duration_us is None else duration_us / 1000


class NodeFailure(Struct, frozen=True):
    """Why a node failed; the message is truncated to a bounded length."""

    type: str | None = None
    message: str | None = None


class NodeFacts(Struct, frozen=True):
    """The fields that all descriptions of a node attempt share."""

    node: str
    name: str
    node_type: str | None
    attempt: int
    status: str
    parents: list[str]
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: float | None
    usage: UsageTotals


class NodeSummary(NodeFacts, frozen=True):
    """One attempt at a node, without payloads."""

    error: NodeFailure | None


class ExportedNode(NodeFacts, frozen=True):
    """One attempt at a node, as exports have it."""

    error_type: str | None
    error_message: str | None


NODE_COLUMNS: Final = """
    n.run, n.node, n.name, n.node_type, n.attempt, n.status, n.parents, n.started_at, n.finished_at,
    n.duration_us, n.input_tokens, n.output_tokens, n.cost_nano_usd, n.error_type, n.error_message
"""
"""What these are made of, as SQL over the nodes `n`."""
NODE_ORDER: Final = "n.started_at ASC NULLS LAST, n.node, n.attempt"


def node_facts_of(row: Any) -> dict[str, Any]:
    """Return the fields of `NodeFacts` for a row of `nodes`."""
    return {
        "node": row.node,
        "name": row.name,
        "node_type": row.node_type,
        "attempt": row.attempt,
        "status": row.status,
        "parents": row.parents or [],
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "duration_ms": to_ms(row.duration_us),
        "usage": usage_of(row.input_tokens, row.output_tokens, row.cost_nano_usd),
    }


def failure_of(row: Any) -> NodeFailure | None:
    """Return the error of a row of `nodes`, if it has one."""
    if row.error_type is None and row.error_message is None:
        return None
    return NodeFailure(row.error_type, row.error_message)

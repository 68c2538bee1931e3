"""What lists return: the words of the contract, as frozen structs that encode to its JSON."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType

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
    """Tokens, and money in US dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost_usd: float = 0.0


class ErrorSummary(Struct, frozen=True):
    """Why a run failed, its message cut to a bounded length."""

    type: str | None = None
    message: str | None = None
    node: str | None = None


class RunFacts(Struct, frozen=True, kw_only=True):
    """What a run's summary and its details have in common."""

    id: str
    project: str
    workflow: str
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
    """How many there are in all, and how sure that is."""

    value: int
    relation: Literal["exact", "at_least", "estimate"]


class Watermark(Struct, frozen=True):
    """How far the fold has come.

    `position` has the last folded frame of each shard, `folded_at` is the time of the newest
    folded event and `age_s` how long ago that is by PostgreSQL's clock.
    """

    position: dict[str, str]
    folded_at: datetime | None
    age_s: float | None


class Searched(Struct, frozen=True):
    """How much of the payloads has been searched: of runs that have ended, as they were `up_to`.

    `behind` changes of runs have been folded since and not been looked at yet. `since`: only runs
    that began then or later, as older ones are still being put in; null: all.
    """

    up_to: datetime | None
    behind: int
    since: datetime | None


class RunPage(Struct, frozen=True):
    """Runs, newest first; `next_cursor` leads to older ones, `prev_cursor` to newer ones.

    A page may hold fewer runs than its limit, even none, and still have a `next_cursor`.
    `searched` is there when payloads were searched.
    """

    runs: list[RunSummary]
    next_cursor: str | None
    prev_cursor: str | None
    total: Total
    watermark: Watermark
    searched: Searched | UnsetType = UNSET


def run_id(row: Any) -> str:
    """The id that the run was given."""
    return row.given_id if row.given_id is not None else str(row.run)


def facts_of(row: Any) -> dict[str, Any]:
    """The fields of `RunFacts` from a row of `runs`."""
    return {
        "id": run_id(row),
        "project": row.project,
        "workflow": row.workflow,
        "status": row.status,
        "attempt": row.attempt,
        "parent_run": row.parent_run,
        "trigger_type": row.trigger_type,
        "user": row.user,
        "session": row.session,
        "tags": row.tags or {},
        "queued_at": row.queued_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "duration_ms": to_ms(row.duration_us),
        "usage": usage_of(row.input_tokens, row.output_tokens, row.cost_nano_usd),
        "exit_code": row.exit_code,
    }


SUMMARY_FIELDS: Final = (
    *("run", "created_at", "queued_at", "started_at", "finished_at", "duration_us"),
    *("input_tokens", "output_tokens", "cost_nano_usd"),
    *("nodes_total", "nodes_pending", "nodes_running", "nodes_completed", "nodes_failed"),
    *("nodes_skipped", "nodes_cancelled", "exit_code", "shard", "attempt", "status"),
    *("project", "workflow", "given_id", "parent_run", "trigger_type", "user", "session"),
    *("tags", "error_type", "error_message", "error_node", "fingerprint"),
)
"""The columns of `runs` that lists show and filter by, in the order in which they are selected."""


def summary_of(row: Sequence[Any]) -> RunSummary:
    """A row that begins with `SUMMARY_FIELDS`, in the words of the contract.

    By their places: a list's rows have 1,600 values, and by name each takes a microsecond.
    """
    run, _, queued_at, started_at, finished_at, duration_us = row[:6]
    input_tokens, output_tokens, cost_nano_usd = row[6:9]
    exit_code, _, attempt, status, project, workflow, given_id = row[16:23]
    parent_run, trigger_type, user, session, tags = row[23:28]
    error = row[28:31]
    return RunSummary(
        id=str(run) if given_id is None else given_id,
        project=project,
        workflow=workflow,
        status=status,
        attempt=attempt,
        parent_run=parent_run,
        trigger_type=trigger_type,
        user=user,
        session=session,
        tags=tags or {},
        queued_at=queued_at,
        started_at=started_at,
        finished_at=finished_at,
        duration_ms=to_ms(duration_us),
        usage=usage_of(input_tokens, output_tokens, cost_nano_usd),
        exit_code=exit_code,
        nodes=NodeCounts(*row[9:16]),
        error=None if error == (None, None, None) else ErrorSummary(*error),
    )


def counts_of(row: Any) -> NodeCounts:
    """The node counts of a row of `runs`."""
    return NodeCounts(
        row.nodes_total,
        row.nodes_pending,
        row.nodes_running,
        row.nodes_completed,
        row.nodes_failed,
        row.nodes_skipped,
        row.nodes_cancelled,
    )


def usage_of(input_tokens: int, output_tokens: int, cost_nano_usd: int) -> UsageTotals:
    """Sums as they are stored (numeric ones too) in the contract's units."""
    tokens_in, tokens_out = int(input_tokens), int(output_tokens)
    return UsageTotals(tokens_in, tokens_out, tokens_in + tokens_out, int(cost_nano_usd) / NANO)


def to_ms(duration_us: int | None) -> float | None:
    """Milliseconds, to the microsecond."""
    return None if duration_us is None else duration_us / 1000

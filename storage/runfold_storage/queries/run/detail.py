"""The details of one run: summary and nodes, joined with payloads; its live state, with output."""

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

from msgspec import Raw, Struct

from runfold.protocol.codec import to_us
from runfold.protocol.events import Cancelled, Event, Failed
from runfold_storage.postgres.connections import ReadConnection
from runfold_storage.read_models.summaries import (
    ErrorSummary,
    NodeCounts,
    NodeFacts,
    NodeFailure,
    NodeSummary,
    RunFacts,
    RunSummary,
    failure_of,
    node_facts_of,
    summary_of,
)

from . import sql
from .events import EventKey, EventQuery, event_of, read_rows
from .payloads import Payloads, first_present, read_payloads

MAX_NODES: Final = 10_000
"""Maximum number of node attempts; beyond it `truncated` is true."""
TAIL: Final = 500
"""Newest events with output that a new reader gets."""
MAX_LINES: Final = 1000
"""Events with output per read."""
_ANY_SIZE: Final = 2**40


class ErrorDetail(ErrorSummary, frozen=True, kw_only=True):
    """Why a run failed, in full."""

    stack: str | None = None


class NodeError(NodeFailure, frozen=True):
    """Why a node failed, in full."""

    stack: str | None = None


class TriggerDetail(Struct, frozen=True):
    """What triggered the run."""

    type: str
    data: Raw | None = None


class NodeDetail(NodeFacts, frozen=True):
    """One attempt at a node; payloads are the JSON that was sent."""

    inputs: Raw | None
    outputs: Raw | None
    error: NodeError | None


PayloadState = Literal["kept", "archived", "removed", "unavailable"]


class RunDetail(RunFacts, frozen=True, kw_only=True):
    """One run; `nodes` has its node attempts by their start, `node_counts` the counts.

    `source` is `archive` for a run that is no longer in the database. `payloads` says where inputs,
    outputs and events are: `kept` in the ledger, read from the archive, `removed` by retention, or
    `unavailable` because the archive cannot be read at the moment.
    """

    source: Literal["database", "archive"] = "database"
    payloads: PayloadState = "kept"
    payloads_removed_at: datetime | None = None
    error: ErrorDetail | None
    reason: str | None
    trigger: TriggerDetail | None
    inputs: Raw | None
    outputs: Raw | None
    metadata: Raw | None
    node_counts: NodeCounts
    nodes: list[NodeDetail]
    truncated: bool


class RunRecord(NamedTuple):
    """A run as stored in the database; `row` has the columns of `sql.RUN`."""

    row: Any
    nodes: Sequence[Any]
    payloads: Payloads


def read_run(connection: ReadConnection, shard: int, run: UUID) -> RunRecord | None:
    """Return one run, or None; `connection` is in a transaction with one snapshot."""
    location = {"shard": shard, "run": run}
    row = connection.execute(sql.RUN, location).fetchone()
    if row is None:
        return None
    nodes = connection.execute(sql.NODES, location | {"limit": MAX_NODES + 1}).fetchall()
    return RunRecord(row, nodes, read_payloads(connection, shard, run))


def make_detail(row: Any, nodes: Sequence[Any], contents: Payloads, **more: Any) -> RunDetail:
    """Return the details of a run from its row of `runs`, its rows of `nodes` and its payloads."""
    summary = summary_of(row)
    return RunDetail(
        **{name: getattr(summary, name) for name in RunFacts.__struct_fields__},
        error=_run_error(summary.error, contents.end),
        reason=contents.end.reason if isinstance(contents.end, Cancelled) else None,
        trigger=row.trigger_type and TriggerDetail(row.trigger_type, contents.trigger_data),
        inputs=contents.inputs,
        outputs=contents.outputs,
        metadata=contents.metadata,
        node_counts=summary.nodes,
        nodes=[_node(node, contents) for node in nodes[:MAX_NODES]],
        truncated=contents.truncated or len(nodes) > MAX_NODES,
        **more,
    )


def _run_error(summary: ErrorSummary | None, end: Event | None) -> ErrorDetail | None:
    full = end.error if isinstance(end, Failed) else None
    error = full or summary
    if error is None:
        return None
    stack = None if full is None else full.stack
    return ErrorDetail(error.type, error.message, error.node, stack=stack)


def _node(row: Any, payloads: Payloads) -> NodeDetail:
    start = payloads.node_starts.get((row.node, row.attempt))
    end = payloads.node_ends.get((row.node, row.attempt))
    full = None if end is None else end.error
    error, stack = full or failure_of(row), None if full is None else full.stack
    return NodeDetail(
        **node_facts_of(row),
        inputs=None if start is None else first_present([start.inputs]),
        outputs=None if end is None else first_present([end.outputs]),
        error=None if error is None else NodeError(error.type, error.message, stack),
    )


class RunProgress(NamedTuple):
    """A run's state; `change_seq` is its newest change, `log_key` the key of its newest output."""

    run: RunSummary
    change_seq: int
    nodes: list[NodeSummary]
    output: list[Raw]
    log_key: EventKey | None


def read_progress(
    connection: ReadConnection, shard: int, run: UUID, after: EventKey | None = None
) -> RunProgress | None:
    """Return the run, and its output after `after`; None if there is no such run.

    Output that arrives late, with a time before `after`, is only found by reading from the start.
    """
    location = {"shard": shard, "run": run}
    row = connection.execute(sql.RUN, location).fetchone()
    if row is None:
        return None
    nodes = connection.execute(sql.NODES, location | {"limit": MAX_NODES}).fetchall()
    summary = summary_of(row)
    wanted = EventQuery(summary.id, ("logged",), None, MAX_LINES, key=after)
    if after is None:
        wanted = wanted._replace(limit=TAIL, backwards=True)
    output = read_rows(connection, shard, run, wanted, after, max_bytes=_ANY_SIZE)[: wanted.limit]
    output.sort(key=attrgetter("at", "id"))
    return RunProgress(
        summary,
        row.change_seq,
        [NodeSummary(**node_facts_of(node), error=failure_of(node)) for node in nodes],
        [event_of(summary.id, each) for each in output],
        (to_us(output[-1].at), output[-1].id) if output else after,
    )

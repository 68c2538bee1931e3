"""The details of one run: its summary and nodes, joined with the payloads of the ledger.

Status, times and counts come from the projection; payloads are stored once, in the events.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

from msgspec import Raw, Struct

from runfold.protocol.events import Cancelled, Error, Event, Failed
from runfold_storage.postgres.connections import ReadConnection
from runfold_storage.read_models.summaries import (
    ErrorSummary,
    NodeCounts,
    NodeFacts,
    NodeFailure,
    RunFacts,
    counts_of,
    error_of,
    facts_of,
    failure_of,
    node_facts_of,
)

from . import sql
from .payloads import Payloads, first_present, read_payloads

MAX_NODES: Final = 10_000
"""Maximum number of node attempts; beyond it `truncated` is true."""


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
    outputs and events are: `kept` in the ledger; `archived` by retention and read from the archive;
    `removed` by retention at `payloads_removed_at`; or `unavailable` because the archive cannot be
    read at the moment.
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
    """A run as stored in the database."""

    row: Any
    nodes: Sequence[Any]
    payloads: Payloads

    @property
    def is_expired(self) -> bool:
        """Whether retention has deleted its payloads, or is about to."""
        return bool(self.row.is_expired)


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
    return RunDetail(
        **facts_of(row),
        error=_run_error(row, contents.end),
        reason=contents.end.reason if isinstance(contents.end, Cancelled) else None,
        trigger=None
        if row.trigger_type is None
        else TriggerDetail(row.trigger_type, contents.trigger_data),
        inputs=contents.inputs,
        outputs=contents.outputs,
        metadata=contents.metadata,
        node_counts=counts_of(row),
        nodes=[_node(node, contents) for node in nodes[:MAX_NODES]],
        truncated=contents.truncated or len(nodes) > MAX_NODES,
        **more,
    )


def _run_error(row: Any, end: Event | None) -> ErrorDetail | None:
    if isinstance(end, Failed) and end.error is not None:
        error = end.error
        return ErrorDetail(error.type, error.message, error.node, stack=error.stack)
    summary = error_of(row)
    return None if summary is None else ErrorDetail(summary.type, summary.message, summary.node)


def _node(row: Any, payloads: Payloads) -> NodeDetail:
    start = payloads.node_starts.get((row.node, row.attempt))
    end = payloads.node_ends.get((row.node, row.attempt))
    return NodeDetail(
        **node_facts_of(row),
        inputs=None if start is None else first_present([start.inputs]),
        outputs=None if end is None else first_present([end.outputs]),
        error=_node_error(row, None if end is None else end.error),
    )


def _node_error(row: Any, error: Error | None) -> NodeError | None:
    if error is not None:
        return NodeError(error.type, error.message, error.stack)
    failure = failure_of(row)
    return None if failure is None else NodeError(failure.type, failure.message)

"""Everything about one run: its summary and nodes, joined with the payloads of the ledger.

Status, times and counts come from the projection. Payloads are stored once, in the events, and
belong to whoever wins the fold's slots: `queued`, `started`, the end of the run, start and end of
each attempt at a node, each the earliest event by (time, id). What `started` says goes before
what `queued` says. Metadata is merged key by key, the latest value wins.
"""

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Raw, Struct
from sqlalchemy import Connection, Row, Select, func, select

from runfold.codec import decode_body
from runfold.errors import BrokenEvent
from runfold.events import (
    Annotated,
    Cancelled,
    Completed,
    Error,
    Event,
    Failed,
    NodeFinished,
    NodeStarted,
    Queued,
    Started,
)

from .run_lists import SUMMARY_COLUMNS
from .summaries import NodeCounts, RunFacts, UsageTotals, counts_of, facts_of, to_ms, usage_of
from .tables import events, nodes, runs

MAX_NODES: Final = 10_000
MAX_EVENTS: Final = 25_000
MAX_BYTES: Final = 64 * 1024 * 1024
"""What is read at most for one run; beyond it `truncated` is true."""

_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_log = logging.getLogger(__name__)


class ErrorDetail(Struct, frozen=True):
    """Why a run or a node failed, whole."""

    type: str | None = None
    message: str | None = None
    stack: str | None = None
    node: str | None = None


class NodeError(Struct, frozen=True):
    """Why a node failed, whole."""

    type: str | None = None
    message: str | None = None
    stack: str | None = None


class TriggerDetail(Struct, frozen=True):
    """What set the run off."""

    type: str
    data: Raw | None = None


class NodeDetail(Struct, frozen=True):
    """One attempt at a node; payloads are JSON as it was sent."""

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
    inputs: Raw | None
    outputs: Raw | None
    error: NodeError | None


class RunDetail(RunFacts, frozen=True, kw_only=True):
    """One run; `nodes` has its attempts at nodes by their start, `node_counts` the numbers."""

    error: ErrorDetail | None
    reason: str | None
    trigger: TriggerDetail | None
    inputs: Raw | None
    outputs: Raw | None
    metadata: Raw | None
    node_counts: NodeCounts
    nodes: list[NodeDetail]
    truncated: bool


def read_run(connection: Connection, shard: int, run: UUID) -> RunDetail | None:
    """One run, or None; `connection` is in a transaction with one snapshot for all of it."""
    row = connection.execute(
        select(*SUMMARY_COLUMNS).where(runs.c.shard == shard, runs.c.run == run).limit(1)
    ).one_or_none()
    if row is None:
        return None
    node_rows = connection.execute(_nodes_statement(shard, run)).all()
    event_rows = connection.execute(payloads_statement(shard, run)).all()
    payloads = Payloads()
    for event in _decoded(event_rows[:MAX_EVENTS]):
        payloads.add(event)
    in_all = event_rows[-1].n if event_rows else 0
    return RunDetail(
        **facts_of(row),
        error=_run_error(row, payloads.end),
        reason=payloads.end.reason if isinstance(payloads.end, Cancelled) else None,
        trigger=_trigger(row, payloads),
        inputs=payloads.inputs,
        outputs=payloads.outputs,
        metadata=payloads.metadata,
        node_counts=counts_of(row),
        nodes=[_node(node_row, payloads) for node_row in node_rows[:MAX_NODES]],
        truncated=len(node_rows) > MAX_NODES or in_all > len(event_rows),
    )


class Payloads:
    """The winners of the slots, told from a run's events in the order of (time, id)."""

    def __init__(self) -> None:
        self.queued: Queued | None = None
        self.started: Started | None = None
        self.end: Completed | Failed | Cancelled | None = None
        self.node_starts: dict[tuple[str, int], NodeStarted] = {}
        self.node_ends: dict[tuple[str, int], NodeFinished] = {}
        self._metadata: dict[str, Raw] = {}

    def add(self, event: Event) -> None:
        """Take the next event into account; the first that claims a slot keeps it."""
        match event:
            case NodeStarted():
                self.node_starts.setdefault((event.node, event.attempt), event)
            case NodeFinished():
                self.node_ends.setdefault((event.node, event.attempt), event)
            case Queued():
                self.queued = self.queued or event
                self._merge(event.metadata)
            case Started():
                self.started = self.started or event
                self._merge(event.metadata)
            case Annotated():
                self._merge(event.metadata)
            case Completed() | Failed() | Cancelled():
                self.end = self.end or event
            case _:
                pass

    @property
    def inputs(self) -> Raw | None:
        return _first(begin.inputs for begin in (self.started, self.queued) if begin is not None)

    @property
    def trigger_data(self) -> Raw | None:
        for begin in (self.started, self.queued):
            if begin is not None and begin.trigger is not None:
                return _first([begin.trigger.data])
        return None

    @property
    def outputs(self) -> Raw | None:
        if isinstance(self.end, Completed | Failed):
            return _first([self.end.outputs])
        return None

    @property
    def metadata(self) -> Raw | None:
        return Raw(msgspec.json.encode(self._metadata)) if self._metadata else None

    def _merge(self, metadata: Raw) -> None:
        """Only objects have keys; anything else says nothing and stays in the ledger."""
        if bytes(metadata).startswith(b"{"):
            self._metadata.update(_OBJECT.decode(metadata))


def payloads_statement(shard: int, run: UUID) -> Select[Any]:
    """The run's events that carry payloads, up to a number of bytes, and how many there are."""
    order = (events.c.at, events.c.id)
    every = (
        select(
            *order,
            events.c.type,
            events.c.body,
            func.sum(func.octet_length(events.c.body)).over(order_by=order).label("bytes"),
            func.count().over().label("n"),
        )
        .where(events.c.shard == shard, events.c.run == run, events.c.type != "logged")
        .subquery()
    )
    return (
        select(every.c.type, every.c.body, every.c.n)
        .where(every.c.bytes <= MAX_BYTES)
        .order_by(every.c.at, every.c.id)
        .limit(MAX_EVENTS)
    )


def _nodes_statement(shard: int, run: UUID) -> Select[Any]:
    return (
        select(*(column for column in nodes.c if column.name not in ("shard", "run")))
        .where(nodes.c.shard == shard, nodes.c.run == run)
        .order_by(nodes.c.started_at.asc().nulls_last(), nodes.c.node, nodes.c.attempt)
        .limit(MAX_NODES + 1)
    )


def _decoded(rows: Iterable[Row[Any]]) -> Iterable[Event]:
    for row in rows:
        try:
            yield decode_body(row.type, row.body.encode())
        except BrokenEvent as error:  # an older Runfold let it in; the ledger's view still has it
            _log.warning("an event of the ledger cannot be read", extra={"reason": str(error)})


def _trigger(row: Row[Any], payloads: Payloads) -> TriggerDetail | None:
    if row.trigger_type is None:
        return None
    return TriggerDetail(row.trigger_type, payloads.trigger_data)


def _run_error(row: Row[Any], end: Event | None) -> ErrorDetail | None:
    if isinstance(end, Failed) and end.error is not None:
        error = end.error
        return ErrorDetail(error.type, error.message, error.stack, error.node)
    if row.error_type is None and row.error_message is None and row.error_node is None:
        return None
    return ErrorDetail(row.error_type, row.error_message, None, row.error_node)


def _node(row: Row[Any], payloads: Payloads) -> NodeDetail:
    start = payloads.node_starts.get((row.node, row.attempt))
    end = payloads.node_ends.get((row.node, row.attempt))
    return NodeDetail(
        node=row.node,
        name=row.name,
        node_type=row.node_type,
        attempt=row.attempt,
        status=row.status,
        parents=row.parents or [],
        started_at=row.started_at,
        finished_at=row.finished_at,
        duration_ms=to_ms(row.duration_us),
        usage=usage_of(row.input_tokens, row.output_tokens, row.cost_nano_usd),
        inputs=None if start is None else _first([start.inputs]),
        outputs=None if end is None else _first([end.outputs]),
        error=_node_error(row, None if end is None else end.error),
    )


def _node_error(row: Row[Any], error: Error | None) -> NodeError | None:
    if error is not None:
        return NodeError(error.type, error.message, error.stack)
    if row.error_type is None and row.error_message is None:
        return None
    return NodeError(row.error_type, row.error_message)


def _first(payloads: Iterable[Raw]) -> Raw | None:
    """The first payload that was given; a null is none."""
    return next((raw for raw in payloads if bytes(raw) not in (b"", b"null")), None)

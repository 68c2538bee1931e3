"""The live state of one run: its summary, its nodes without payloads, and its latest output."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from msgspec import Raw
from sqlalchemy import Connection, Row, Select, select, tuple_

from runfold.protocol.codec import to_datetime, to_us
from runfold_storage.filters.summary_columns import SUMMARY_COLUMNS
from runfold_storage.read_models.summaries import (
    NodeFailure,
    NodeSummary,
    RunSummary,
    node_facts_of,
    summary_of,
)
from runfold_storage.tables import events, nodes, runs

from .events import EventKey, event_of

TAIL: Final = 500
"""Newest events with output that a new reader gets."""
MAX_LINES: Final = 1000
"""Events with output per read."""
MAX_NODES: Final = 10_000


class RunProgress(NamedTuple):
    """A run's state; `change_seq` is its newest change, `log_key` the key of its newest output."""

    run: RunSummary
    change_seq: int
    nodes: list[NodeSummary]
    output: list[Raw]
    log_key: EventKey | None


def read_progress(
    connection: Connection, shard: int, run: UUID, after: EventKey | None = None
) -> RunProgress | None:
    """Return the run, and its output after `after`; None if there is no such run.

    Output that arrives late, with a time before `after`, is only found by reading from the start.
    """
    row = connection.execute(
        select(*SUMMARY_COLUMNS, runs.c.change_seq)
        .where(runs.c.shard == shard, runs.c.run == run)
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    node_rows = connection.execute(
        select(nodes)
        .where(nodes.c.shard == shard, nodes.c.run == run)
        .order_by(nodes.c.started_at.asc().nulls_last(), nodes.c.node, nodes.c.attempt)
        .limit(MAX_NODES)
    )
    summary = summary_of(row)
    output = _read_output(connection, shard, run, after)
    return RunProgress(
        summary,
        row.change_seq,
        [_node(node_row) for node_row in node_rows],
        [event_of(summary.id, each) for each in output],
        (to_us(output[-1].at), output[-1].id) if output else after,
    )


def _read_output(
    connection: Connection, shard: int, run: UUID, after: EventKey | None
) -> Sequence[Row[Any]]:
    statement: Select[Any] = select(events.c.id, events.c.at, events.c.type, events.c.body).where(
        events.c.shard == shard, events.c.run == run, events.c.type == "logged"
    )
    order = (events.c.at, events.c.id)
    if after is None:
        newest = statement.order_by(*(column.desc() for column in order)).limit(TAIL)
        return connection.execute(newest).all()[::-1]
    later = statement.where(tuple_(*order) > tuple_(to_datetime(after[0]), after[1]))
    return connection.execute(later.order_by(*order).limit(MAX_LINES)).all()


def _node(row: Row[Any]) -> NodeSummary:
    failed = row.error_type is not None or row.error_message is not None
    return NodeSummary(
        **node_facts_of(row),
        error=NodeFailure(row.error_type, row.error_message) if failed else None,
    )

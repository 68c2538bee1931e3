"""The live state of one run: its summary, its nodes without payloads, and its latest output."""

from operator import attrgetter
from typing import Final, NamedTuple
from uuid import UUID

from msgspec import Raw

from runfold.protocol.codec import to_us
from runfold_storage.postgres.connections import ReadConnection
from runfold_storage.read_models.summaries import (
    NodeSummary,
    RunSummary,
    failure_of,
    node_facts_of,
    summary_of,
)

from . import sql
from .events import EventKey, EventQuery, event_of, read_rows

TAIL: Final = 500
"""Newest events with output that a new reader gets."""
MAX_LINES: Final = 1000
"""Events with output per read."""
MAX_NODES: Final = 10_000
_ANY_SIZE: Final = 2**40


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

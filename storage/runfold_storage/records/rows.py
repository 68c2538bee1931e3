"""The rows that a batch of the fold writes.

Field names are column names; `run` is the 16 bytes of the run key. Times are in microseconds since
the epoch and money in nano-dollars, so that sums are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from runfold.protocol.codec import to_datetime

from .rollup import RollupDelta, RollupKey

LedgerRow = tuple[bytes, int, int, int, int, bytes]
"""An event of the ledger: run (the key's 16 bytes), id, at_us, kind (the index of its type in
`TYPES`), shard, body. A plain tuple, because creating one must be cheap."""


class RunRow(NamedTuple):
    """The row of a run after a batch, which assigns its `change_seq`; `…_at` as in the tables."""

    shard: int
    run: bytes
    external_id: str | None
    project: str
    workflow: str
    status: str
    attempt: int
    parent_run: str | None
    trigger_type: str | None
    user: str | None
    session: str | None
    tags: dict[str, str] | None
    created_us: int
    queued_us: int | None
    started_us: int | None
    finished_us: int | None
    last_event_us: int
    duration_us: int | None
    input_tokens: int
    output_tokens: int
    cost_nano_usd: int
    nodes_total: int
    nodes_pending: int
    nodes_running: int
    nodes_completed: int
    nodes_failed: int
    nodes_skipped: int
    nodes_cancelled: int
    exit_code: int | None
    error_type: str | None
    error_message: str | None
    error_node: str | None

    @property
    def queued_at(self) -> datetime | None:
        return _time(self.queued_us)

    @property
    def started_at(self) -> datetime | None:
        return _time(self.started_us)

    @property
    def finished_at(self) -> datetime | None:
        return _time(self.finished_us)


class NodeRow(NamedTuple):
    """The row of an attempt at a node after a batch."""

    shard: int
    run: bytes
    node: str
    attempt: int
    name: str
    status: str
    node_type: str | None
    parents: list[str] | None
    started_us: int | None
    finished_us: int | None
    duration_us: int | None
    input_tokens: int
    output_tokens: int
    cost_nano_usd: int
    error_type: str | None
    error_message: str | None

    @property
    def started_at(self) -> datetime | None:
        return _time(self.started_us)

    @property
    def finished_at(self) -> datetime | None:
        return _time(self.finished_us)


def _time(us: int | None) -> datetime | None:
    return None if us is None else to_datetime(us)


def column_of(field: str) -> str:
    """Return the column of a field of `RunRow` or `NodeRow`: a time ends with `_at`."""
    if field.endswith("_us") and field != "duration_us":
        return field.removesuffix("_us") + "_at"
    return field


class DeadLetter(NamedTuple):
    """An event that could not be decoded: `frame` is its stream entry's id, `ordinal` the index."""

    shard: int
    frame: str
    ordinal: int
    reason: str
    raw: bytes


class PositionUpdate(NamedTuple):
    """The move of one shard, from the position that the worker expects to the last frame read."""

    shard: int
    expected: str
    generation: int
    position: str
    consumed: int
    change_seq: int
    folded_us: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """All rows that one transaction writes; `number` counts the batches of one worker."""

    advances: list[PositionUpdate]
    events: list[LedgerRow] = field(default_factory=list)
    new_runs: list[tuple[RunRow, int]] = field(default_factory=list)
    """Each with its `change_seq`; new rows are apart from changed ones, which may be updated."""
    changed_runs: list[tuple[RunRow, int]] = field(default_factory=list)
    new_nodes: list[NodeRow] = field(default_factory=list)
    changed_nodes: list[NodeRow] = field(default_factory=list)
    stats: dict[RollupKey, RollupDelta] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    number: int = 0
    run_ids: list[tuple[int, Sequence[str]]] = field(default_factory=list)
    """(shard, ids) of the runs whose events it holds or ignores, frame by frame."""
    new_events: dict[int, int] = field(default_factory=dict)
    """The number of `events` by shard."""
    ignored: dict[tuple[int, str], int] = field(default_factory=dict)
    """Counts by (shard, reason) of events of runs that are `deleted` or `expired`."""

    @property
    def runs(self) -> list[tuple[RunRow, int]]:
        """New and changed ones."""
        return self.new_runs + self.changed_runs

    @property
    def nodes(self) -> list[NodeRow]:
        """New and changed ones."""
        return self.new_nodes + self.changed_nodes

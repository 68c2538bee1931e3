"""Encode a batch for the database, and choose how it is written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from runfold_storage.checkpoints.change_log import ChangeRow, change_rows
from runfold_storage.postgres.binary_format import COPIED, RECORDS
from runfold_storage.postgres.bulk_write import Rows, Upsert
from runfold_storage.records.encoding import (
    NODE_FIELDS,
    RUN_FIELDS,
    encode_events,
    encode_nodes,
    encode_runs,
    encode_stats,
)
from runfold_storage.records.rollup import RollupScope, rollup_scope
from runfold_storage.records.rows import Batch, DeadLetter, PositionUpdate
from runfold_storage.rollups.min_max import MinMaxRecheck, removed_durations

RUNS: Final = Upsert(
    "runs",
    RUN_FIELDS,
    ("shard", "run"),
    # The ledger keeps no heartbeats, so a refolded run does not have them.
    merged={"last_event_at": "greatest(runs.last_event_at, excluded.last_event_at)"},
)

NODES: Final = Upsert("nodes", NODE_FIELDS, ("shard", "run", "node", "attempt"))


class SingleStatementLimits(NamedTuple):
    """How large a batch may be to be written as one statement."""

    events: int = 1000
    """Below this number of events, round trips dominate."""
    bytes: int = 4 * 1024 * 1024
    """Limit of their bodies: PostgreSQL holds a parameter in memory more than once."""


DEFAULT_LIMITS: Final = SingleStatementLimits()


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """Rows as records; for a large batch, new rows in COPY format instead."""

    advances: Sequence[PositionUpdate]
    event_records: Rows | None
    """None for a large batch."""
    events: Sequence[bytes]
    new_runs: bytes
    new_nodes: bytes
    changed_runs: Rows
    changed_nodes: Rows
    stats: Rows
    scopes: Sequence[RollupScope]
    """What `stats` belong to."""
    min_max_rechecks: Sequence[MinMaxRecheck]
    """Rollups whose minimum and maximum may have to be looked up."""
    changes: Sequence[ChangeRow]
    """The rows of the change log."""
    dead_letters: Sequence[DeadLetter]


def encode_batch(batch: Batch, limits: SingleStatementLimits = DEFAULT_LIMITS) -> EncodedBatch:
    """Encode a batch; raise `psycopg.DataError` for values that cannot be stored."""
    events = batch.events
    stats = {key: difference for key, difference in batch.stats.items() if difference.is_nonzero}
    removed = removed_durations(stats)
    is_single = (
        len(events) < limits.events
        and not removed
        and not batch.dead_letters
        and sum(len(event[-1]) for event in events) <= limits.bytes
    )
    changed_nodes = batch.nodes if is_single else batch.changed_nodes
    is_large = not is_single
    return EncodedBatch(
        event_records=(
            Rows(len(events), b"".join(encode_events(events, RECORDS))) if is_single else None
        ),
        events=encode_events(events, COPIED) if is_large and events else [],
        new_nodes=encode_nodes(batch.new_nodes, COPIED) if is_large and batch.new_nodes else b"",
        changed_nodes=Rows(len(changed_nodes), encode_nodes(changed_nodes, RECORDS)),
        stats=Rows(len(stats), encode_stats(stats)),
        scopes=sorted(set(map(rollup_scope, stats))),
        min_max_rechecks=removed,
        dead_letters=batch.dead_letters,
        **_encode_numbered(batch, is_single=is_single),
    )


def renumber(encoded: EncodedBatch, batch: Batch) -> EncodedBatch:
    """Encode again what the batch's change numbers are in, after they were changed."""
    return replace(encoded, **_encode_numbered(batch, is_single=is_single_statement(encoded)))


def _encode_numbered(batch: Batch, *, is_single: bool) -> dict[str, Any]:
    new, changed = ([], batch.runs) if is_single else (batch.new_runs, batch.changed_runs)
    return {
        "advances": batch.advances,
        "new_runs": encode_runs(new, COPIED) if new else b"",
        "changed_runs": Rows(len(changed), encode_runs(changed, RECORDS)),
        "changes": change_rows(batch.new_runs, batch.changed_runs),
    }


def is_single_statement(batch: EncodedBatch) -> bool:
    """Return whether all of it is one statement, which is its own transaction."""
    return batch.event_records is not None

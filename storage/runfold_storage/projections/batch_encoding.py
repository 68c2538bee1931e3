"""Encode a batch for the database, and choose how it is written.

Encoding needs no connection, so one batch is encoded while another is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from runfold_storage.checkpoints.change_log import ChangeRow, change_rows
from runfold_storage.postgres.binary_format import COPIED, RECORDS
from runfold_storage.postgres.bulk_write import Rows, Upsert
from runfold_storage.records.encoding import (
    NODE_FIELDS,
    RUN_FIELDS,
    encode_event_records,
    encode_events,
    encode_nodes,
    encode_runs,
    encode_stats,
)
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


SMALL: Final = 2000
"""Below this number of events, a batch writes changed rows and deltas without COPY or merging."""
SINGLE_STATEMENT_EVENTS: Final = 400
"""Below this number of events, round trips dominate, and a batch is written as one statement."""
SINGLE_STATEMENT_BYTES: Final = 4 * 1024 * 1024
"""Limit of their bodies: PostgreSQL holds a parameter in memory more than once."""


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """New rows in COPY format, changed rows as records; all as records for a single statement."""

    advances: Sequence[PositionUpdate]
    events: Sequence[bytes]
    event_records: Rows | None
    """Instead of `events`, if the batch is written as a single statement."""
    new_runs: bytes
    changed_runs: Rows
    new_nodes: bytes
    changed_nodes: Rows
    stats: Rows
    min_max_rechecks: Sequence[MinMaxRecheck]
    """Rollups whose minimum and maximum may have to be looked up."""
    stats_shards: Sequence[int]
    defers_rollups: bool
    """Whether the deltas are appended, to be merged later."""
    changes: Sequence[ChangeRow]
    """The rows of the change log."""
    dead_letters: Sequence[DeadLetter]


def encode_batch(batch: Batch) -> EncodedBatch:
    """Encode a batch; raise `psycopg.DataError` for values that cannot be stored."""
    new_runs, changed_runs = batch.new_runs, batch.changed_runs
    new_nodes, changed_nodes = batch.new_nodes, batch.changed_nodes
    events = batch.events
    is_small = len(events) < SMALL
    if is_small:  # a COPY would take longer than it saves
        new_runs, changed_runs = [], new_runs + changed_runs
        new_nodes, changed_nodes = [], new_nodes + changed_nodes
    stats = {key: difference for key, difference in batch.stats.items() if difference.is_nonzero}
    removed = removed_durations(stats)
    is_single = (
        len(events) < SINGLE_STATEMENT_EVENTS
        and is_small
        and not removed
        and not batch.dead_letters
        and sum(map(len, map(_body_of, events))) <= SINGLE_STATEMENT_BYTES
    )
    return EncodedBatch(
        advances=batch.advances,
        events=[] if is_single or not events else list(encode_events(events)),
        event_records=Rows(len(events), encode_event_records(events)) if is_single else None,
        new_runs=encode_runs(new_runs, COPIED) if new_runs else b"",
        changed_runs=Rows(len(changed_runs), encode_runs(changed_runs, RECORDS)),
        new_nodes=encode_nodes(new_nodes, COPIED) if new_nodes else b"",
        changed_nodes=Rows(len(changed_nodes), encode_nodes(changed_nodes, RECORDS)),
        stats=Rows(len(stats), encode_stats(stats)),
        min_max_rechecks=removed,
        stats_shards=sorted({key.shard for key in stats}),
        defers_rollups=is_small and not removed and bool(stats),
        changes=change_rows(batch.new_runs, batch.changed_runs),
        dead_letters=batch.dead_letters,
    )


_body_of: Final = itemgetter(-1)


def is_single_statement(batch: EncodedBatch) -> bool:
    """Whether all of it is one statement, which is its own transaction (`is_single`)."""
    return batch.event_records is not None

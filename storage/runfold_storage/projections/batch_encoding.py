"""A batch as the database takes it: all work on it that needs no database.

Apart from its writing, so that one batch can be prepared while another one is written.
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
from runfold_storage.rollups.min_max import MinMaxRecheck, taken_back

RUNS: Final = Upsert(
    "runs",
    RUN_FIELDS,
    ("shard", "run"),
    # The ledger keeps no heartbeats, so a run that is folded again has forgotten them.
    merged={"last_event_at": "greatest(runs.last_event_at, excluded.last_event_at)"},
)

NODES: Final = Upsert("nodes", NODE_FIELDS, ("shard", "run", "node", "attempt"))


SMALL: Final = 2000
"""Events: below it, a batch costs as much as the statements that write it."""
AT_ONCE: Final = 400
"""Events: below it, these cost as much as the round trips that they take (`at_once`)."""
AT_ONCE_BYTES: Final = 4 * 1024 * 1024
"""Of their bodies: PostgreSQL has a parameter in memory more than once."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is new as COPY takes it, what may be there as records; all as records, if at once."""

    advances: Sequence[PositionUpdate]
    events: Sequence[bytes]
    event_records: Rows | None
    """Instead of `events`, where the batch goes at once."""
    new_runs: bytes
    changed_runs: Rows
    new_nodes: bytes
    changed_nodes: Rows
    stats: Rows
    taken_back: Sequence[MinMaxRecheck]
    """Rollups whose extremes may have to be looked up."""
    stats_shards: Sequence[int]
    stats_wait: bool
    """Whether the differences are appended, for someone else to merge."""
    told: Sequence[ChangeRow]
    """What watchers are told."""
    dead_letters: Sequence[DeadLetter]


def prepare(batch: Batch) -> Prepared:
    """Raises `psycopg.DataError` for what cannot be stored."""
    new_runs, changed_runs = batch.new_runs, batch.changed_runs
    new_nodes, changed_nodes = batch.new_nodes, batch.changed_nodes
    events = batch.events
    is_small = len(events) < SMALL
    if is_small:  # a COPY of its own would take longer than it saves
        new_runs, changed_runs = [], new_runs + changed_runs
        new_nodes, changed_nodes = [], new_nodes + changed_nodes
    stats = {key: difference for key, difference in batch.stats.items() if difference.changes}
    gone = taken_back(stats)
    at_once = (
        len(events) < AT_ONCE
        and is_small
        and not gone
        and not batch.dead_letters
        and sum(map(len, map(_body_of, events))) <= AT_ONCE_BYTES
    )
    return Prepared(
        advances=batch.advances,
        events=[] if at_once or not events else list(encode_events(events)),
        event_records=Rows(len(events), encode_event_records(events)) if at_once else None,
        new_runs=encode_runs(new_runs, COPIED) if new_runs else b"",
        changed_runs=Rows(len(changed_runs), encode_runs(changed_runs, RECORDS)),
        new_nodes=encode_nodes(new_nodes, COPIED) if new_nodes else b"",
        changed_nodes=Rows(len(changed_nodes), encode_nodes(changed_nodes, RECORDS)),
        stats=Rows(len(stats), encode_stats(stats)),
        taken_back=gone,
        stats_shards=sorted({key.shard for key in stats}),
        stats_wait=is_small and not gone and bool(stats),
        told=change_rows(batch.new_runs, batch.changed_runs),
        dead_letters=batch.dead_letters,
    )


_body_of: Final = itemgetter(-1)


def is_at_once(batch: Prepared) -> bool:
    """Whether all of it is one statement, which is its own transaction (`at_once`)."""
    return batch.event_records is not None

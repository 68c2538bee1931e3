"""Writing a batch of the fold: all of it in one transaction, or none.

The positions move first, by compare-and-set: their row locks keep a second writer of the same
shard waiting until it finds that the position has moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import psycopg

from runfold.crashing import crash_point

from .changes import ChangeRow, change_rows, write_changes
from .copying import copy_encoded
from .encoding import (
    EVENT_FIELDS,
    NODE_FIELDS,
    RUN_FIELDS,
    encode_events,
    encode_nodes,
    encode_runs,
    encode_stats,
)
from .errors import LedgerKnowsMore, PositionMoved
from .extremes import TakenBack, find_extremes, taken_back
from .fields import COPIED, RECORDS
from .positions import advance_positions
from .rollups import STATS
from .rows import Advance, Batch, DeadLetter
from .unmerged import append_differences, merge_shards
from .upserts import Rows, Upsert

SMALL: Final = 2000
"""Events: below it, a batch costs as much as the statements that write it."""

DATA_ERRORS: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
)
"""What PostgreSQL raises when a batch's data are to blame, and repeating it would not help."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch as the database takes it: what is new as COPY does, what may be there as records."""

    advances: Sequence[Advance]
    events: Sequence[bytes]
    new_runs: bytes
    changed_runs: Rows
    new_nodes: bytes
    changed_nodes: Rows
    stats: Rows
    taken_back: Sequence[TakenBack]
    """Rollups whose extremes may have to be looked up."""
    stats_shards: Sequence[int]
    stats_wait: bool
    """Whether the differences are appended, for someone else to merge."""
    told: Sequence[ChangeRow]
    """What watchers are told."""
    dead_letters: Sequence[DeadLetter]


def prepare(batch: Batch) -> Prepared:
    """All work on a batch that needs no database; `psycopg.DataError` for what cannot be stored.

    Apart from `write_batch`, so that one batch can be prepared while another one is written.
    """
    new_runs, changed_runs = batch.new_runs, batch.changed_runs
    new_nodes, changed_nodes = batch.new_nodes, batch.changed_nodes
    is_small = len(batch.events) < SMALL
    if is_small:  # a COPY of its own would take longer than it saves
        new_runs, changed_runs = [], new_runs + changed_runs
        new_nodes, changed_nodes = [], new_nodes + changed_nodes
    stats = {key: difference for key, difference in batch.stats.items() if difference.changes}
    gone = taken_back(stats)
    return Prepared(
        advances=batch.advances,
        events=list(encode_events(batch.events)) if batch.events else [],
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


def write_batch(connection: psycopg.Connection, batch: Prepared) -> None:
    """Write a batch in the transaction that is open; the caller commits. After `prepare_session`.

    Raises `PositionMoved` when another worker was there first, `LedgerKnowsMore` when what the
    batch takes for new is there already, and `DATA_ERRORS`; roll back after any.
    """
    advance_positions(connection, batch.advances)
    crash_point("after_positions_move")
    try:
        for table, fields, chunks in (
            ("events", EVENT_FIELDS, batch.events),
            ("runs", RUN_FIELDS, [batch.new_runs]),
            ("nodes", NODE_FIELDS, [batch.new_nodes]),
        ):
            if any(chunks):
                copy_encoded(connection, table, fields, chunks)
    except psycopg.errors.UniqueViolation as error:
        raise LedgerKnowsMore(str(error)) from error
    crash_point("after_events_copied")
    if batch.stats.n and not batch.stats_wait:
        merge_shards(connection, batch.stats_shards)
    try:
        _write_changes(connection, batch)
    except psycopg.errors.UniqueViolation as error:
        # Numbers of changes that are given out: no event is to blame, the worker has to look again.
        step = batch.advances[0]
        raise PositionMoved(step.shard, step.believed) from error
    if batch.dead_letters:
        _write_dead_letters(connection, batch.dead_letters)


def write_images(connection: psycopg.Connection, batch: Batch) -> None:
    """Only the rows and the statistics of a batch, for whoever holds its shards (`hold_shard`)."""
    _write_changes(connection, replace(prepare(batch), stats_wait=False))


def _write_changes(connection: psycopg.Connection, batch: Prepared) -> None:
    with connection.pipeline():
        for upsert, rows in ((_RUNS, batch.changed_runs), (_NODES, batch.changed_nodes)):
            if rows.n:
                upsert.insert(connection, rows)
        if batch.stats_wait:
            append_differences(connection, batch.stats)
        elif batch.stats.n:
            STATS.insert(connection, batch.stats)
        if batch.told:
            write_changes(connection, batch.told)
    if batch.taken_back:
        with connection.pipeline():
            for gone in batch.taken_back:
                find_extremes(connection, gone)


_RUNS: Final = Upsert(
    "runs",
    RUN_FIELDS,
    ("shard", "run"),
    # The ledger keeps no heartbeats, so a run that is folded again has forgotten them.
    merged={"seen_at": "greatest(runs.seen_at, excluded.seen_at)"},
)
_NODES: Final = Upsert("nodes", NODE_FIELDS, ("shard", "run", "node", "attempt"))


def prepare_session(connection: psycopg.Connection) -> None:
    """Make what `write_batch` needs to have on a connection."""
    let_go_when_frozen(connection)
    for upsert in (_RUNS, _NODES, STATS):
        upsert.prepare(connection)


def let_go_when_frozen(connection: psycopg.Connection) -> None:
    """Have the server end this session within a quarter of a minute when nobody answers.

    A worker that is frozen, or whose machine is gone, must not hold its row locks for ever.
    """
    for setting, value in _IMPATIENCE.items():
        connection.execute("SELECT set_config(%s, %s, false)", (setting, value))


_IMPATIENCE: Final = {
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
}


def _write_dead_letters(connection: psycopg.Connection, dead_letters: Sequence[DeadLetter]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO dead_letters (shard, frame, ordinal, reason, raw)
            VALUES (%s, %s, %s, %s, %s)
            ON CONFLICT (shard, frame, ordinal) DO NOTHING
            """,
            dead_letters,
        )

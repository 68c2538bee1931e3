"""Writing a batch of the fold: all of it in one transaction, or none.

The positions move first, by compare-and-set: their row locks keep a second writer of the same
shard waiting until it finds that the position has moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql

from runfold.crashing import crash_point

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
from .errors import LedgerKnowsMore
from .positions import advance_positions
from .rollups import add_stats
from .rows import Advance, Batch, DeadLetter, StatsKey
from .upserts import upsert_rows

DATA_ERRORS: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
)
"""What PostgreSQL raises when a batch's data are to blame, and repeating it would not help."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch as the database takes it: rows in the binary form of COPY."""

    advances: Sequence[Advance]
    events: Sequence[bytes]
    new_runs: bytes
    changed_runs: bytes
    new_nodes: bytes
    changed_nodes: bytes
    stats: bytes
    taken_back: Sequence[StatsKey]
    """Rollups whose extremes have to be looked up."""
    dead_letters: Sequence[DeadLetter]


def prepare(batch: Batch) -> Prepared:
    """All work on a batch that needs no database; `psycopg.DataError` for what cannot be stored.

    Apart from `write_batch`, so that one batch can be prepared while another one is written.
    """
    stats = {key: difference for key, difference in batch.stats.items() if difference.changes}
    return Prepared(
        advances=batch.advances,
        events=list(encode_events(batch.events)) if batch.events else [],
        new_runs=encode_runs(batch.new_runs) if batch.new_runs else b"",
        changed_runs=encode_runs(batch.changed_runs) if batch.changed_runs else b"",
        new_nodes=encode_nodes(batch.new_nodes) if batch.new_nodes else b"",
        changed_nodes=encode_nodes(batch.changed_nodes) if batch.changed_nodes else b"",
        stats=encode_stats(stats) if stats else b"",
        taken_back=sorted(key for key, difference in stats.items() if difference.takes_back),
        dead_letters=batch.dead_letters,
    )


def write_batch(connection: psycopg.Connection, batch: Prepared) -> None:
    """Write a batch in the transaction that is open; the caller commits.

    Raises `PositionMoved` when another worker was there first, `LedgerKnowsMore` when what the
    batch takes for new is there already, and `DATA_ERRORS`; roll back after any.
    """
    advance_positions(connection, batch.advances)
    crash_point("after_positions_move")
    try:
        for table, fields, rows in (
            ("events", EVENT_FIELDS, batch.events),
            ("runs", RUN_FIELDS, [batch.new_runs]),
            ("nodes", NODE_FIELDS, [batch.new_nodes]),
        ):
            if any(rows):
                copy_encoded(connection, table, fields, rows)
    except psycopg.errors.UniqueViolation as error:
        raise LedgerKnowsMore(str(error)) from error
    crash_point("after_events_copied")
    if batch.changed_runs:
        upsert_rows(connection, "runs", RUN_FIELDS, _RUNS_KEY, batch.changed_runs, _SEEN_AT)
    if batch.changed_nodes:
        upsert_rows(connection, "nodes", NODE_FIELDS, _NODES_KEY, batch.changed_nodes)
    if batch.stats:
        add_stats(connection, batch.stats, batch.taken_back)
    if batch.dead_letters:
        _write_dead_letters(connection, batch.dead_letters)


_RUNS_KEY: Final = ("shard", "run")
_NODES_KEY: Final = ("shard", "run", "node", "attempt")
# The ledger keeps no heartbeats, so a run that is folded again has forgotten them.
_SEEN_AT: Final = {"seen_at": sql.SQL("greatest(runs.seen_at, excluded.seen_at)")}


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

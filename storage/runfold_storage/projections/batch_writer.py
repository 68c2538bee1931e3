"""Writing a batch of the fold: all of it in one transaction, or none.

The positions move first, by compare-and-set: their row locks keep a second writer of the same
shard waiting until it finds that the position has moved.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import psycopg

from runfold.crash_points import crash_point
from runfold_storage.checkpoints.change_log import write_changes
from runfold_storage.checkpoints.positions import advance_positions
from runfold_storage.errors import DuplicateInLedger, PositionMoved
from runfold_storage.postgres.bulk_write import copy_encoded
from runfold_storage.records.encoding import EVENT_FIELDS, NODE_FIELDS, RUN_FIELDS
from runfold_storage.records.rows import Batch, DeadLetter
from runfold_storage.rollups.min_max import find_extremes
from runfold_storage.rollups.pending_deltas import append_deltas, merge_shards
from runfold_storage.rollups.store import STATS

from .batch_encoding import NODES, RUNS, Prepared, is_at_once, prepare
from .single_statement import prepare_at_once, write_at_once

DATA_ERRORS: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
)
"""What PostgreSQL raises when a batch's data are to blame, and repeating it would not help."""


def write_batch(connection: psycopg.Connection, batch: Prepared) -> None:
    """Write a batch in the transaction that is open; the caller commits. After `prepare_writing`.

    One that goes at once needs none, and is committed then. Raises `PositionMoved` when another
    worker was there first, `DuplicateInLedger` when what the batch takes for new is there already,
    and `DATA_ERRORS`; roll back after any.
    """
    try:
        if is_at_once(batch):
            write_at_once(connection, batch)
        else:
            _write_by_steps(connection, batch)
    except psycopg.errors.UniqueViolation as error:
        if error.diag.table_name != "changes":
            raise DuplicateInLedger(str(error)) from error
        # Numbers of changes that are given out: no event is to blame, the worker has to look again.
        step = batch.advances[0]
        raise PositionMoved(step.shard, step.expected) from error


def write_images(connection: psycopg.Connection, batch: Batch) -> None:
    """Only the rows and the statistics of a batch, whose shard is held (`hold_shard`).

    The caller notes the runs with `change_behind`, which gives out their numbers.
    """
    _write_changes(connection, replace(prepare(batch), stats_wait=False, told=[]))


def _write_by_steps(connection: psycopg.Connection, batch: Prepared) -> None:
    advance_positions(connection, batch.advances)
    crash_point("after_positions_move")
    for table, fields, chunks in (
        ("events", EVENT_FIELDS, batch.events),
        ("runs", RUN_FIELDS, [batch.new_runs]),
        ("nodes", NODE_FIELDS, [batch.new_nodes]),
    ):
        if any(chunks):
            copy_encoded(connection, table, fields, chunks)
    crash_point("after_events_copied")
    if batch.stats.n and not batch.stats_wait:
        merge_shards(connection, batch.stats_shards)
    _write_changes(connection, batch)
    if batch.dead_letters:
        _write_dead_letters(connection, batch.dead_letters)


def _write_changes(connection: psycopg.Connection, batch: Prepared) -> None:
    with connection.pipeline():
        for upsert, rows in ((RUNS, batch.changed_runs), (NODES, batch.changed_nodes)):
            if rows.n:
                upsert.insert(connection, rows)
        if batch.stats_wait:
            append_deltas(connection, batch.stats)
        elif batch.stats.n:
            STATS.insert(connection, batch.stats)
        if batch.told:
            write_changes(connection, batch.told)
    if batch.taken_back:
        with connection.pipeline():
            find_extremes(connection, batch.taken_back)


def prepare_session(connection: psycopg.Connection) -> None:
    """Make what `write_images` needs to have on a connection."""
    set_session_timeouts(connection)
    for upsert in (RUNS, NODES, STATS):
        upsert.prepare(connection)


def prepare_writing(connection: psycopg.Connection) -> None:
    """Make what `write_batch` needs to have on a connection."""
    prepare_session(connection)
    prepare_at_once(connection)


def set_session_timeouts(connection: psycopg.Connection) -> None:
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

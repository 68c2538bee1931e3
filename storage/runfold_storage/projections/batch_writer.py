"""Write a batch of the fold in one transaction.

The positions move first, by compare-and-set. Their row locks block a second writer of the same
shard until it finds that the position has moved.
"""

from collections.abc import Sequence
from typing import Final

import psycopg

from runfold.crash_points import crash_point
from runfold_storage.checkpoints.change_log import INSERT_CHANGES, ChangeRow, change_parameters
from runfold_storage.checkpoints.positions import advance_positions
from runfold_storage.errors import DuplicateInLedger, PositionMoved
from runfold_storage.postgres.bulk_write import Binary, copy_encoded
from runfold_storage.records.encoding import EVENT_FIELDS, NODE_FIELDS, RUN_FIELDS
from runfold_storage.records.rows import Batch, DeadLetter
from runfold_storage.rollups.min_max import MinMaxCache, recheck_min_max
from runfold_storage.rollups.store import ROLLUPS, merge_overlapping

from .batch_encoding import NODES, RUNS, EncodedBatch, encode_batch, is_single_statement
from .single_statement import prepare_single_statement, write_single_statement

DATA_ERRORS: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
)
"""Errors that a batch's data cause, so that repeating the batch would not help."""


def write_batch(connection: psycopg.Connection, batch: EncodedBatch) -> None:
    """Write a batch in the open transaction; the caller commits. Requires `prepare_writing`.

    A single-statement batch needs no transaction and commits itself. Raises `PositionMoved` if
    another worker was faster, `DuplicateInLedger` if the ledger has an event that the batch
    assumes to be new, and `DATA_ERRORS`; the caller rolls back after any of them.
    """
    try:
        if is_single_statement(batch):
            write_single_statement(connection, batch)
        else:
            _write_by_steps(connection, batch)
    except psycopg.errors.UniqueViolation as error:
        if error.diag.table_name != "changes":
            raise DuplicateInLedger(str(error)) from error
        # The numbers of changes are taken: no event is at fault, the worker has to reload.
        step = batch.advances[0]
        raise PositionMoved(step.shard, step.expected) from error


def write_projections(
    connection: psycopg.Connection, batch: Batch, min_max: MinMaxCache | None = None
) -> None:
    """Write only the changed rows and the rollups of a batch, whose shard is locked (`lock_shard`).

    The caller logs the changes with `bump_generation`, which assigns their numbers. `min_max` saves
    looking up minima and maxima again, for a caller that removes many runs in several batches.
    """
    _write_rows(connection, encode_batch(batch), [], MinMaxCache() if min_max is None else min_max)


def _write_by_steps(connection: psycopg.Connection, batch: EncodedBatch) -> None:
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
    _write_rows(connection, batch, batch.changes, MinMaxCache())
    if batch.dead_letters:
        _write_dead_letters(connection, batch.dead_letters)


def _write_rows(
    connection: psycopg.Connection,
    batch: EncodedBatch,
    changes: Sequence[ChangeRow],
    min_max: MinMaxCache,
) -> None:
    if batch.stats.n:
        merge_overlapping(connection, batch.scopes)
    with connection.pipeline():
        for upsert, rows in (
            (RUNS, batch.changed_runs),
            (NODES, batch.changed_nodes),
            (ROLLUPS, batch.stats),
        ):
            if rows.n:
                upsert.insert(connection, rows)
        if changes:
            values = [Binary(value) for value in change_parameters(changes)]
            connection.execute(INSERT_CHANGES, values)
    if batch.min_max_rechecks:
        recheck_min_max(connection, batch.min_max_rechecks, min_max)


def prepare_session(connection: psycopg.Connection) -> None:
    """Prepare a connection for `write_projections`."""
    set_session_timeouts(connection)
    for upsert in (RUNS, NODES, ROLLUPS):
        upsert.prepare(connection)


def prepare_writing(connection: psycopg.Connection) -> None:
    """Prepare a connection for `write_batch`."""
    prepare_session(connection)
    prepare_single_statement(connection)


def set_session_timeouts(connection: psycopg.Connection) -> None:
    """Make the server end this session within 15 s if the client does not respond.

    A worker that is frozen, or whose host is gone, must not keep its row locks.
    """
    for setting, value in _TIMEOUTS.items():
        connection.execute("SELECT set_config(%s, %s, false)", (setting, value))


_TIMEOUTS: Final = {
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

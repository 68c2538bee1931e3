"""Write a small batch as one statement, which is its own transaction.

Separate statements take eight round trips, and each wakes a process at either end, which takes as
long as writing the rows of ten events. So all rows are parameters of one statement that is prepared
once, bypassing the driver's own handling of statements and values.

The positions move first. If another worker has moved one, the statement raises an error, which
undoes everything. Its other parts do not depend on each other.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Final

import psycopg
from psycopg.pq import ConnStatus, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from runfold_storage.checkpoints.change_log import INSERT_CHANGES, change_parameters
from runfold_storage.checkpoints.positions import ADVANCE, advance_parameters
from runfold_storage.errors import PositionMoved
from runfold_storage.postgres.bulk_write import Append
from runfold_storage.records.encoding import EVENT_FIELDS
from runfold_storage.rollups.store import INSERT_DELTAS, ROLLUPS

from .batch_encoding import NODES, RUNS, EncodedBatch

EVENTS: Final = Append("events", EVENT_FIELDS, enums={"type": "event_type"})

_NAME: Final = b"runfold_batch"
_MOVED: Final = "RF001"
"""The SQLSTATE if a position is not where its worker expects it; the detail is the shard."""

_CHECK: Final = """
    CREATE OR REPLACE FUNCTION pg_temp.all_moved(wanted smallint[], moved smallint[])
    RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        IF cardinality(moved) < cardinality(wanted) THEN
            RAISE EXCEPTION 'another worker has moved a position' USING ERRCODE = 'RF001',
                DETAIL = (SELECT min(s) FROM unnest(wanted) AS s WHERE s <> ALL (moved));
        END IF;
    END $$
"""


def prepare_single_statement(connection: psycopg.Connection) -> None:
    """Prepare a connection, in addition to `batch_writer.prepare_session`."""
    EVENTS.prepare(connection)
    connection.execute(_CHECK)
    connection.execute("SET plan_cache_mode = force_generic_plan")  # the arrays have any length
    _prepare(connection)


def write_single_statement(connection: psycopg.Connection, batch: EncodedBatch) -> None:
    """Write a batch; raise `PositionMoved`, and errors as `batch_writer.write_batch`.

    Commits it unless the caller has opened a transaction, after `restore_single_statement`.
    """
    assert batch.event_records is not None
    given = [
        *advance_parameters(batch.advances),
        EVENTS.array(connection, batch.event_records).data,
        RUNS.array(connection, batch.changed_runs).data,
        NODES.array(connection, batch.changed_nodes).data,
        ROLLUPS.array(connection, batch.stats).data,
        *change_parameters(batch.changes),
    ]
    try:
        _run(connection, given)
    except psycopg.DatabaseError as error:
        if error.sqlstate != _MOVED:
            raise
        expected = {str(step.shard): step for step in batch.advances}
        step = expected[error.diag.message_detail or ""]
        raise PositionMoved(step.shard, step.expected) from error


def restore_single_statement(connection: psycopg.Connection) -> None:
    """Prepare the statement again if psycopg dropped it; call it before opening a transaction.

    Inside one a missing statement is an error, which aborts the transaction.
    """
    if connection.pgconn.describe_prepared(_NAME).status != ExecStatus.COMMAND_OK:
        _prepare(connection)


def _run(connection: psycopg.Connection, given: Sequence[bytes]) -> None:
    server, formats = connection.pgconn, [Format.BINARY] * len(given)
    try:
        _check(server, server.exec_prepared(_NAME, given, formats))
    except psycopg.errors.InvalidSqlStatementName:  # psycopg drops all of them after a ROLLBACK
        if server.transaction_status != TransactionStatus.IDLE:
            raise
        _prepare(connection)
        _check(server, server.exec_prepared(_NAME, given, formats))


def _prepare(connection: psycopg.Connection) -> None:
    server = connection.pgconn
    with suppress(psycopg.errors.DuplicatePreparedStatement):
        _check(server, server.prepare(_NAME, _statement()))


def _check(server: PGconn, result: PGresult) -> None:
    if result.status in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
        return
    if server.status != ConnStatus.OK:
        raise psycopg.OperationalError(result.get_error_message())
    raise psycopg.errors.error_from_result(result)


@cache
def _statement() -> bytes:
    """Return the statement; its parameters are in the order of `write_single_statement`."""
    parts = {
        "moved": ADVANCE.encode(),
        "events_in": EVENTS.statement,
        "runs_in": RUNS.statement,
        "nodes_in": NODES.statement,
        "differences_in": INSERT_DELTAS.encode(),
        "changes_in": INSERT_CHANGES.encode(),
    }
    whole = b"WITH " + b", ".join(b"%b AS (%b)" % (name.encode(), parts[name]) for name in parts)
    whole += b" SELECT pg_temp.all_moved($1, ARRAY(SELECT shard FROM moved))"
    first, *rest = whole.split(b"%b")
    return first + b"".join(b"$%d%b" % (number, part) for number, part in enumerate(rest, 1))

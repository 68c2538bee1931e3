"""Writing a batch of the fold: all of it in one transaction, or none.

The positions move first, by compare-and-set: their row locks keep a second writer of the same
shard waiting until it finds that the position has moved.
"""

from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from .copying import copy_columns, copy_rows
from .errors import LedgerKnowsMore
from .positions import advance_positions
from .rollups import add_stats
from .rows import Batch, DeadLetter, LedgerRow, RunRow
from .upserts import upsert_rows

DATA_ERRORS: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
)
"""What PostgreSQL raises when a batch's data are to blame, and repeating it would not help."""


def write_batch(connection: psycopg.Connection, batch: Batch) -> None:
    """Write a batch in the transaction that is open; the caller commits.

    Raises `PositionMoved` when another worker was there first, `LedgerKnowsMore` when an event
    that the batch takes for new is in the ledger, and `DATA_ERRORS`; roll back after any.
    """
    advance_positions(connection, batch.advances)
    _write_events(connection, batch.events)
    upsert_rows(connection, "runs", _RUNS, _RUNS_KEY, map(_run_values, batch.runs), _SEEN_AT)
    upsert_rows(connection, "nodes", _NODES, _NODES_KEY, batch.nodes)
    add_stats(connection, batch.stats)
    _write_dead_letters(connection, batch.dead_letters)


EVENT_COLUMNS: Final = copy_columns(
    run="uuid", id="int8", at="us", type="text", shard="int2", body="utf8"
)
_RUNS_KEY: Final = ("shard", "run")
_RUNS: Final = copy_columns(
    shard="int2",
    run="uuid",
    given_id="text",
    project="text",
    workflow="text",
    status="text",
    attempt="int2",
    parent_run="text",
    trigger_type="text",
    user="text",
    session="text",
    tags="jsonb",
    created_at="us",
    queued_at="us",
    started_at="us",
    finished_at="us",
    seen_at="us",
    duration_us="int8",
    input_tokens="int8",
    output_tokens="int8",
    cost_nano_usd="int8",
    nodes_total="int4",
    nodes_pending="int4",
    nodes_running="int4",
    nodes_completed="int4",
    nodes_failed="int4",
    nodes_skipped="int4",
    nodes_cancelled="int4",
    exit_code="int4",
    error_type="text",
    error_message="text",
    error_node="text",
    feed_seq="int8",
)
_TAGS: Final = RunRow._fields.index("tags")
# The ledger keeps no heartbeats, so a run that is folded again has forgotten them.
_SEEN_AT: Final = {"seen_at": sql.SQL("greatest(runs.seen_at, excluded.seen_at)")}
_NODES_KEY: Final = ("shard", "run", "node", "attempt")
_NODES: Final = copy_columns(
    shard="int2",
    run="uuid",
    node="text",
    attempt="int2",
    name="text",
    status="text",
    node_type="text",
    parents="text[]",
    started_at="us",
    finished_at="us",
    duration_us="int8",
    input_tokens="int8",
    output_tokens="int8",
    cost_nano_usd="int8",
    error_type="text",
    error_message="text",
)


def _write_events(connection: psycopg.Connection, events: Sequence[LedgerRow]) -> None:
    if not events:
        return
    try:
        copy_rows(connection, "events", EVENT_COLUMNS, events)
    except psycopg.errors.UniqueViolation as error:
        raise LedgerKnowsMore(str(error)) from error


def _run_values(run: tuple[RunRow, int]) -> list[Any]:
    values: list[Any] = [*run[0], run[1]]
    if values[_TAGS] is not None:
        values[_TAGS] = Jsonb(values[_TAGS])
    return values


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

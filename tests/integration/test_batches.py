"""Batches by COPY and as one statement leave the same in the tables."""

from typing import Any

import psycopg
import pytest

from runfold.protocol.codec import TYPES
from runfold_storage.errors import DuplicateInLedger, PositionMoved
from runfold_storage.ledger.partitions import OWN_IDS
from runfold_storage.projections import batch_encoding, batch_writer
from runfold_storage.projections.batch_encoding import DEFAULT_LIMITS, SingleStatementLimits
from runfold_storage.records.rollup import RollupDelta, RollupKey
from runfold_storage.records.rows import Batch, NodeRow, PositionUpdate, RunRow

pytestmark = pytest.mark.usefixtures("deployment")

DAY_US = 86_400_000_000
TEXTS = ("", "plain", "naïve – 東京 🚀", "x" * 10_000, "\\N", "{a,b}", '"quoted", \n and \t')


def a_run(key: int, **changes: Any) -> RunRow:
    empty = RunRow(
        shard=1,
        run=bytes(15) + bytes([key]),
        external_id=None,
        project="",
        workflow="w",
        status="queued",
        attempt=1,
        parent_run=None,
        trigger_type=None,
        user=None,
        session=None,
        tags=None,
        created_us=0,
        queued_us=None,
        started_us=None,
        finished_us=None,
        last_event_us=0,
        duration_us=None,
        input_tokens=0,
        output_tokens=0,
        cost_nano_usd=0,
        nodes_total=0,
        nodes_pending=0,
        nodes_running=0,
        nodes_completed=0,
        nodes_failed=0,
        nodes_skipped=0,
        nodes_cancelled=0,
        exit_code=None,
        error_type=None,
        error_message=None,
        error_node=None,
    )
    return empty._replace(**changes)


def a_node(run: int, **changes: Any) -> NodeRow:
    empty = NodeRow(
        shard=1,
        run=bytes(15) + bytes([run]),
        node="n",
        attempt=1,
        name="n",
        status="pending",
        node_type=None,
        parents=None,
        started_us=None,
        finished_us=None,
        duration_us=None,
        input_tokens=0,
        output_tokens=0,
        cost_nano_usd=0,
        error_type=None,
        error_message=None,
    )
    return empty._replace(**changes)


RUNS = [
    a_run(1),
    a_run(
        2,
        external_id="my own",
        project="p",
        status="failed",
        attempt=2**15 - 1,
        parent_run="another",
        trigger_type="cron",
        user="ünal",
        session="s",
        tags={"a": "1", "b": "", "ключ": '"\\'},
        created_us=1_700_000_000_123_456,
        queued_us=-1,
        started_us=1,
        finished_us=10 * DAY_US,
        last_event_us=200 * 365 * DAY_US,
        duration_us=2**62,
        input_tokens=2**40,
        output_tokens=-5,
        cost_nano_usd=2**62,
        nodes_total=2**31 - 1,
        exit_code=-9,
        error_type="E",
        error_message="no",
        error_node="n",
    ),
    *(a_run(3 + n, workflow=text or "w", error_message=text) for n, text in enumerate(TEXTS)),
]
NODES = [
    a_node(1),
    a_node(1, attempt=2, started_us=5, finished_us=9, duration_us=4, cost_nano_usd=7),
    a_node(2, parents=[], duration_us=0, node_type="t", status="failed", error_type="E"),
    *(
        a_node(3 + n, node=f"n{n}", name=text, parents=[text, "other"], error_message=text)
        for n, text in enumerate(TEXTS)
    ),
]


EVENTS = [
    (OWN_IDS.bytes[:15] + bytes([1 + n % 2]), n, n * DAY_US, n % len(TYPES), 1, body.encode())
    for n, body in enumerate(("{}", '{"text":"naïve – 東京 🚀"}', "x" * 10_000, "") * 4)
]
STATS = {
    RollupKey("w", "p", "", 0, "completed", 1): RollupDelta(n=3, durations={0: 1, 50: 2}),
    RollupKey("w", "p", "n", 0, "running", 2): RollupDelta(n=-1, input_tokens=10**25),
}
WHAT = {
    "events": "run, id, at, type, shard, body",
    "runs": "*",
    "nodes": "*",
    "changes": "shard, change_seq, runs, deleted_ids",
    "positions": "shard, position, consumed, change_seq, generation, folded_at",
}


def write(
    database: psycopg.Connection, batch: Batch, limits: SingleStatementLimits = DEFAULT_LIMITS
) -> dict[str, list[Any]]:
    """What is in the tables after this batch; nothing of it stays."""
    with database.transaction(force_rollback=True):
        batch_writer.write_batch(database, batch_encoding.encode_batch(batch, limits))
        found = {
            table: database.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2").fetchall()
            for table, columns in WHAT.items()
        }
        # Wherever they are: merged, or waiting.
        found["stats"] = database.execute(
            """
            SELECT workflow, project, node, hour, status, shard, n, duration_sum_us, input_tokens,
                   bins, bin_counts
            FROM (TABLE pending_rollups UNION ALL SELECT workflow, project, node, hour, status,
                  shard, n, duration_count, duration_min_us, duration_max_us, duration_sum_us,
                  input_tokens, output_tokens, cost_nano_usd, bins, bin_counts
                  FROM rollups_hourly) AS s
            ORDER BY shard
            """
        ).fetchall()
        return found


def test_both_write_paths_leave_the_same(
    database: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few events go as one statement, more by COPY."""
    batch = Batch(
        advances=[PositionUpdate(1, "0-0", 0, "5-1", 16, len(RUNS), DAY_US), A_STEP],
        events=EVENTS,
        new_runs=[(run, number) for number, run in enumerate(RUNS, 1)],
        new_nodes=list(NODES),
        stats=STATS,
    )
    assert batch_encoding.is_single_statement(batch_encoding.encode_batch(batch))
    at_once = write(database, batch)
    copied = write(database, batch, SingleStatementLimits(events=0))
    assert [len(copied[table]) for table in ("events", "runs", "nodes", "changes", "stats")] == [
        *(len(EVENTS), len(RUNS), len(NODES), 1, len(STATS))
    ]
    assert copied["positions"][1][:4] == (1, "5-1", 16, len(RUNS))
    assert copied == at_once


def test_large_events_are_copied() -> None:
    """However few they are."""
    batch = Batch(advances=[A_STEP], events=EVENTS)
    size = sum(len(body) for *_, body in EVENTS)
    for most, is_single in ((size, True), (size - 1, False)):
        encoded = batch_encoding.encode_batch(batch, SingleStatementLimits(bytes=most))
        assert batch_encoding.is_single_statement(encoded) == is_single


A_STEP = PositionUpdate(2, "0-0", 0, "7-0", 1, 0, None)


@pytest.mark.parametrize(
    "moved", [A_STEP._replace(expected="6-0"), A_STEP._replace(generation=1)], ids=str
)
@pytest.mark.parametrize("at_once", [0, 400])
def test_a_moved_position_refuses_the_whole_batch(
    database: psycopg.Connection,
    moved: PositionUpdate,
    at_once: int,
) -> None:
    """Also the shards of the same batch whose positions are where they should be."""
    limits = SingleStatementLimits(events=at_once)
    first = PositionUpdate(1, "0-0", 0, "5-1", 16, len(RUNS), DAY_US)
    runs = [(run, number) for number, run in enumerate(RUNS, 1)]
    batch = batch_encoding.encode_batch(
        Batch(advances=[first, moved], events=EVENTS, new_runs=runs), limits
    )
    assert batch_encoding.is_single_statement(batch) == bool(at_once)
    alone = batch_encoding.encode_batch(Batch(advances=[moved], events=EVENTS), limits)
    for refused in (batch, alone):
        with pytest.raises(PositionMoved) as raised, database.transaction():
            batch_writer.write_batch(database, refused)
        assert (raised.value.shard, raised.value.position) == (2, moved.expected)
    for table in ("events", "runs", "changes"):
        assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    assert database.execute("SELECT DISTINCT position FROM positions").fetchall() == [("0-0",)]


@pytest.mark.parametrize("at_once", [0, 400])
def test_duplicate_events_and_taken_change_numbers_raise_different_errors(
    database: psycopg.Connection, at_once: int
) -> None:
    """An event makes the worker load its memory, a number of the feed makes it look for others."""
    limits = SingleStatementLimits(events=at_once)
    step = PositionUpdate(1, "0-0", 0, "5-1", 16, 1, DAY_US)
    run = (RUNS[0], 1)
    again = Batch(advances=[step._replace(expected="5-1")], events=EVENTS)
    numbered = Batch(advances=again.advances, changed_runs=[run])
    first = Batch(advances=[step], events=EVENTS, new_runs=[run])
    batch_writer.write_batch(database, batch_encoding.encode_batch(first, limits))
    for batch, error in ((again, DuplicateInLedger), (numbered, PositionMoved)):
        with pytest.raises(error), database.transaction():
            batch_writer.write_batch(database, batch_encoding.encode_batch(batch, limits))


def test_rows_come_out_as_they_went_in(database: psycopg.Connection) -> None:
    """Some fields that say it for all of their type."""
    row = next(run for run in RUNS if run.external_id == "my own")
    with database.transaction(force_rollback=True):
        batch_writer.write_projections(database, Batch(advances=[], changed_runs=[(row, 77)]))
        found = database.execute(
            """
            SELECT external_id, "user", tags, attempt, change_seq, duration_us, nodes_total,
                   exit_code, parent_run, extract(epoch FROM created_at) * 1000000,
                   queued_at < '1970-01-01'
            FROM runs
            """
        ).fetchone()
    assert found == (
        *("my own", "ünal", row.tags, 2**15 - 1, 77, 2**62, 2**31 - 1, -9),
        *("another", row.created_us, True),
    )


def test_differences_are_added(database: psycopg.Connection) -> None:
    """Counts, exact sums of any size, extremes and bins; a bin that counts nothing goes away."""
    key = RollupKey("w", "p", "", 0, "completed", 1)
    large = 10**25
    first = RollupDelta(n=3, input_tokens=large, cost_nano_usd=-7, durations={0: 1, 50: 2})
    second = RollupDelta(n=-1, output_tokens=12_345, durations={50: -2, 1_000_000: 1})
    counts_alone = RollupDelta(n=5)
    with database.transaction(force_rollback=True):
        for difference in (first, second, counts_alone):
            batch_writer.write_projections(database, Batch(advances=[], stats={key: difference}))
        found = database.execute(
            """
            SELECT n, duration_count, duration_sum_us, input_tokens, output_tokens, cost_nano_usd,
                   cardinality(bins), bin_counts
            FROM rollups_hourly
            """
        ).fetchall()
        days = database.execute(
            "SELECT completed, duration_count, input_tokens, bin_counts FROM rollups_daily"
        ).fetchall()
    assert found == [(7, 2, 1_000_000, large, 12_345, -7, 2, [1, 1])]
    assert days == 3 * [(7, 2, large, [1, 1])]


def test_a_number_that_is_too_large_names_its_table(database: psycopg.Connection) -> None:
    """Before anything is sent."""
    for batch, table in (
        (Batch(advances=[], changed_runs=[(a_run(1, exit_code=2**31), 1)]), "runs"),
        (Batch(advances=[], changed_nodes=[a_node(1, cost_nano_usd=2**63)]), "nodes"),
    ):
        with pytest.raises(psycopg.DataError, match=f"{table}: a number is too large"):
            batch_writer.write_projections(database, batch)

"""Rows by COPY and as records: the two ways into a table leave the same in it."""

from typing import Any

import psycopg
import pytest

from runfold_storage import batches
from runfold_storage.rows import Batch, NodeRow, RunRow, StatsDifference, StatsKey

pytestmark = pytest.mark.usefixtures("deployment")

DAY_US = 86_400_000_000
TEXTS = ("", "plain", "naïve – 東京 🚀", "x" * 10_000, "\\N", "{a,b}", '"quoted", \n and \t')


def a_run(key: int, **changes: Any) -> RunRow:
    empty = RunRow(
        shard=1,
        run=bytes(15) + bytes([key]),
        given_id=None,
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
        seen_us=0,
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
        given_id="my own",
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
        seen_us=200 * 365 * DAY_US,
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


def write(database: psycopg.Connection, batch: Batch) -> dict[str, list[Any]]:
    """What is in the tables after this batch; nothing of it stays."""
    with database.transaction(force_rollback=True):
        batches.write_batch(database, batches.prepare(batch))
        return {
            table: database.execute(f"SELECT * FROM {table} ORDER BY run").fetchall()
            for table in ("runs", "nodes")
        }


def test_both_ways_in_leave_the_same(
    database: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New rows go by COPY in a large batch, and with those that have changed in a small one."""
    numbered = [(run, number) for number, run in enumerate(RUNS, 1)]
    batch = Batch(advances=[], new_runs=numbered, new_nodes=list(NODES))
    as_records = write(database, batch)
    monkeypatch.setattr(batches, "SMALL", 0)
    copied = write(database, batch)
    assert len(copied["runs"]) == len(RUNS)
    assert len(copied["nodes"]) == len(NODES)
    assert copied == as_records


def test_rows_come_out_as_they_went_in(database: psycopg.Connection) -> None:
    """Some fields that say it for all of their type."""
    row = next(run for run in RUNS if run.given_id == "my own")
    with database.transaction(force_rollback=True):
        batches.write_images(database, Batch(advances=[], changed_runs=[(row, 77)]))
        found = database.execute(
            """
            SELECT given_id, "user", tags, attempt, feed_seq, duration_us, nodes_total, exit_code,
                   parent_run, extract(epoch FROM created_at) * 1000000, queued_at < '1970-01-01'
            FROM runs
            """
        ).fetchone()
    assert found == (
        *("my own", "ünal", row.tags, 2**15 - 1, 77, 2**62, 2**31 - 1, -9),
        *("another", row.created_us, True),
    )


def test_differences_are_added(database: psycopg.Connection) -> None:
    """Counts, exact sums of any size, extremes and bins; a bin that counts nothing goes away."""
    key = StatsKey("w", "p", "", 0, "completed", 1)
    large = 10**25
    first = StatsDifference(n=3, input_tokens=large, cost_nano_usd=-7, durations={0: 1, 50: 2})
    second = StatsDifference(n=-1, output_tokens=12_345, durations={50: -2, 1_000_000: 1})
    counts_alone = StatsDifference(n=5)
    with database.transaction(force_rollback=True):
        for difference in (first, second, counts_alone):
            batches.write_images(database, Batch(advances=[], stats={key: difference}))
        found = database.execute(
            """
            SELECT n, n_timed, duration_sum_us, input_tokens, output_tokens, cost_nano_usd,
                   cardinality(bins), bin_counts
            FROM stats
            """
        ).fetchall()
        days = database.execute(
            "SELECT completed, n_timed, input_tokens, bin_counts FROM stats_days"
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
            batches.write_images(database, batch)

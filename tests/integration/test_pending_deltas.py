"""Differences that wait to be merged are read all the same, and merged exactly once."""

import random
import threading
from typing import Any

import psycopg
import pytest

from folded_events import SHARDS, fold_events, make_event, make_run_events
from frame_delivery import interleave_runs, make_frames
from oracle import project
from rebuild_checks import find_mismatches
from runfold.protocol.events import MAX_NAME
from runfold_storage.history import History
from runfold_storage.postgres import connections
from runfold_storage.projections.batch_encoding import SingleStatementLimits
from runfold_storage.retention.run_deletion import delete_run
from runfold_storage.rollups.recompute import find_wrong_days
from runfold_storage.rollups.shard_lock import lock_shard
from runfold_storage.rollups.store import (
    merge_deltas,
    merge_shards,
    shards_with_pending_deltas,
)
from runfold_workers.consumer.committer import Committer
from runfold_workers.fold.frame_decoder import StreamEntry
from table_reader import count_rows, merge_all_deltas, read_dead_letters, read_projection

RUNS = [
    *make_run_events("a", 0, 3, workflow="v", project="p"),
    *make_run_events("b", 86_400, 50, "failed", workflow="v", project="q"),
    make_event("started", "c", 90_000, workflow="w", project="p"),
]


def answers(history: History) -> list[Any]:
    """All that is read from rollups."""
    stats = [
        history.stats(bucket=bucket, group_by=group_by, tz=tz)
        for bucket in (None, "hour", "day", "month")
        for group_by in (None, "workflow", "project", "status", "node")
        for tz in ("UTC", "Asia/Kolkata")
    ]
    all_filters: list[dict[str, Any]] = [
        {},
        {"project": "p"},
        {"workflow": "v"},
        {"status": "running"},
        {"status": "completed", "project": "p"},
    ]
    lists = [history.runs(**filters) for filters in all_filters]
    return [
        [(one.total, one.duration_ms, one.buckets, one.groups) for one in stats],
        [(one.total, one.runs) for one in lists],
        history.workflows().workflows,
        history.workflows(project="p").workflows,
    ]


def test_pending_deltas_are_read(migrated_url: str, database: psycopg.Connection) -> None:
    """Every answer is the same before and after, whoever has asked before."""
    fold_events(migrated_url, RUNS[:3])
    with History(migrated_url) as history:
        before = answers(history)
        fold_events(migrated_url, RUNS[3:], is_merged=False)
        assert count_rows(database, "pending_rollups") > 0
        told = answers(history)
        assert told != before
        assert find_mismatches(database) == []
        merge_all_deltas(database)
        assert count_rows(database, "pending_rollups") == count_rows(database, "rollup_deltas") == 0
        assert answers(history) == told
    with History(migrated_url) as other:
        assert answers(other) == told
    assert find_wrong_days(database) == []


def test_a_large_batch_after_small_ones(migrated_url: str, database: psycopg.Connection) -> None:
    """What it takes from a status may be what has not been merged yet."""
    fold_events(
        migrated_url, [*RUNS, make_event("node_started", "c", 90_001, node="n")], is_merged=False
    )
    ended = [
        make_event("node_finished", "c", 90_002, node="n"),
        make_event("completed", "c", 90_003),
    ]
    fold_events(
        migrated_url, ended, is_merged=False, single_statement=SingleStatementLimits(events=1)
    )
    assert shards_with_pending_deltas(database)
    with History(migrated_url) as history:
        told = answers(history)
        assert history.runs(status="running").total.value == 0
        assert history.stats(bucket="hour").total == 3
        merge_all_deltas(database)
        assert answers(history) == told
    assert database.execute("SELECT count(*) FROM rollups_hourly WHERE n < 0").fetchone() == (0,)


def test_a_workflow_that_gets_its_name(migrated_url: str, database: psycopg.Connection) -> None:
    """The one that it was counted in is there no longer, before that is merged or after."""
    fold_events(migrated_url, [make_event("annotated", "late", 0, tags={"a": "b"})])
    fold_events(migrated_url, [make_event("started", "late", 1, workflow="named")], is_merged=False)
    assert shards_with_pending_deltas(database)
    with History(migrated_url) as history:
        told = history.workflows().workflows
        assert [one.workflow for one in told] == ["named"]
        merge_all_deltas(database)
        assert history.workflows().workflows == told


def test_an_old_snapshot_reads_its_own_state(
    migrated_url: str, database: psycopg.Connection
) -> None:
    """Merging takes nothing away from who has begun to read, and gives nothing twice."""
    fold_events(migrated_url, RUNS, is_merged=False)
    total = "SELECT sum(total)::int FROM hourly_stats WHERE node IS NULL"
    with connections.connect(migrated_url) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert old.execute(total).fetchone() == (3,)
        merge_all_deltas(database)
        assert count_rows(database, "pending_rollups") == 0
        assert old.execute(total).fetchone() == (3,)
        fold_events(migrated_url, make_run_events("d", 5), is_merged=False)
        assert database.execute(total).fetchone() == (4,)


def test_other_mergers_skip_a_locked_shard(migrated_url: str, database: psycopg.Connection) -> None:
    """They skip the shard until the transaction ends, and do not wait."""
    fold_events(migrated_url, RUNS, is_merged=False)
    waiting = shards_with_pending_deltas(database)
    assert waiting
    with connections.connect(migrated_url, autocommit=True) as other:
        for shard in waiting:
            with database.transaction(force_rollback=True), lock_shard(database, shard) as held:
                held.merge_deltas()
                assert shard not in shards_with_pending_deltas(database)
                merge_deltas(other, shard)
            assert shard in shards_with_pending_deltas(database)
    assert shards_with_pending_deltas(database) == waiting


@pytest.mark.usefixtures("deployment")
def test_a_deleted_run_takes_back_what_waits(
    migrated_url: str, database: psycopg.Connection
) -> None:
    """Nothing of it is counted, before its differences are merged or after."""
    fold_events(migrated_url, RUNS, is_merged=False)
    for run in "abc":
        assert delete_run(database, run)
    assert read_projection(database).stats == {}
    merge_all_deltas(database)
    assert (count_rows(database, "rollups_hourly"), count_rows(database, "rollups_daily")) == (0, 0)


@pytest.mark.usefixtures("deployment")
def test_a_deletion_leaves_what_waits_of_other_workflows(
    migrated_url: str, database: psycopg.Connection
) -> None:
    """It is not merged under the lock; statistics are right before it is merged, and after."""
    fold_events(migrated_url, RUNS)
    others = [event for n in range(8) for event in make_run_events(f"o{n}", n, workflow="another")]
    fold_events(migrated_url, others, is_merged=False)
    waiting = shards_with_pending_deltas(database)
    for run in "abc":
        assert delete_run(database, run)
    assert shards_with_pending_deltas(database) == waiting != []
    with History(migrated_url) as history:
        told = answers(history)
        assert history.stats(bucket="hour").total == 8
        merge_all_deltas(database)
        assert answers(history) == told
    assert find_mismatches(database) == []


def test_the_longest_names_can_be_merged(migrated_url: str, database: psycopg.Connection) -> None:
    """What a batch could append, a rollup has room for: merging has nobody to put the blame on."""
    names = random.Random(1)

    def longest() -> str:
        return "".join(chr(names.randrange(0x10000, 0x1F000)) for _ in range(MAX_NAME))

    run = {"workflow": longest(), "project": longest()}
    told = [
        make_event("started", "a", 0, **run),
        make_event("node_started", "a", 1, node=longest()),
    ]
    fold_events(migrated_url, told, is_merged=False)
    assert read_dead_letters(database) == []
    merge_all_deltas(database)
    with History(migrated_url) as history:
        assert history.stats(workflow=run["workflow"]).running == 1
    assert find_mismatches(database) == []


@pytest.mark.usefixtures("deployment")
def test_merging_beside_the_fold_and_corrections(
    migrated_url: str, database: psycopg.Connection
) -> None:
    """Batches that append and ones that do not, mergers that race, and shards that are held.

    Every difference counts once, and nobody waits in a circle.
    """
    chance = random.Random(7)
    events = interleave_runs(random.Random(6), 2000)
    frames = [
        StreamEntry(shard, f"{number}-0", fields)
        for number, (shard, fields) in enumerate(make_frames(events, size=4), 1)
    ]
    stop = threading.Event()
    failures: list[BaseException] = []

    def again(merge_one: Any) -> None:
        try:
            with connections.connect(migrated_url, autocommit=True) as connection:
                while not stop.is_set():
                    for shard in range(SHARDS):
                        merge_one(connection, shard)
        except BaseException as error:
            failures.append(error)

    def held(connection: psycopg.Connection, shard: int) -> None:
        with connection.transaction():
            merge_shards(connection, [shard])

    mergers = (merge_deltas, merge_deltas, held)
    threads = [threading.Thread(target=again, args=[one]) for one in mergers]
    for thread in threads:
        thread.start()
    try:
        with connections.connect(migrated_url, autocommit=True) as connection:
            limits = SingleStatementLimits(events=30)
            committer = Committer(connection, single_statement=limits)
            committer.own(range(SHARDS))
            while frames:
                length = chance.choice([1, 1, 1, 15])
                committer.commit(frames[:length])
                del frames[:length]
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert failures == []
    assert read_projection(database).stats == project(events, SHARDS).stats
    merge_all_deltas(database)
    assert read_projection(database).stats == project(events, SHARDS).stats
    assert find_wrong_days(database) == []

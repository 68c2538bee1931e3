"""Runs refolded from the ledger: what is wrong is found and put right, and nothing else is touched.

Damage is done to the tables by hand, for the fold itself does none.
"""

import random
import threading
from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest

from conditions import is_folded, run_fold_worker, wait_until
from event_histories import NOON_US, generate_runs
from frame_delivery import (
    SHARDS,
    PacedSender,
    Sender,
    assert_exact,
    fold,
    interleave_runs,
    make_frames,
)
from oracle import HOUR_US, Event, project
from rebuild_checks import ALL_RUNS, NEVER_STOP, examine_runs, find_mismatches, rebuild_all
from runfold.protocol.ids import run_key
from runfold.protocol.streams import agree_on_shards, connect, shard_of
from runfold_storage.admin import Admin
from runfold_storage.checkpoints.positions import load_positions
from runfold_storage.errors import JobLocked
from runfold_storage.jobs import JobInterrupted, add_job, lock_job, read_job
from runfold_storage.postgres import connections
from runfold_workers.integrity.rebuild import rebuild
from runfold_workers.integrity.repair import repair
from runfold_workers.integrity.selection import Selection
from table_reader import read_projection

pytestmark = pytest.mark.usefixtures("deployment")

EVENTS_PER_S = 2000
SECONDS = 6

EVENTS = [event for run in generate_runs(seed=5, events=1500) for event in run]
QUIET = [event for event in EVENTS if event["type"] != "heartbeat"]
"""Heartbeats are not in the ledger, and no rebuild knows of them."""
EXPECTED = project(QUIET, SHARDS)

DAYS = """
    SELECT workflow, project, day, shard, queued, running, completed, failed, cancelled, lost,
           duration_count, duration_sum_us, duration_min_us, duration_max_us
    FROM rollups_daily
    WHERE queued + running + completed + failed + cancelled + lost > 0
    ORDER BY workflow, project, day, shard
"""


@pytest.fixture
def other(migrated_url: str) -> Iterator[psycopg.Connection]:
    """The connection that rebuilds."""
    with connections.connect(migrated_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def history(deployment: None, migrated_url: str) -> None:
    """What `QUIET` makes, folded."""
    fold(migrated_url, QUIET)


def place_of(run: str) -> tuple[int, UUID]:
    return shard_of(run, SHARDS), run_key(run)


def generations(connection: psycopg.Connection) -> list[int]:
    return [position.generation for position in load_positions(connection).values()]


@pytest.mark.usefixtures("history")
def test_what_is_right_is_left_alone(
    database: psycopg.Connection, other: psycopg.Connection
) -> None:
    """Nothing is found, nothing written, and no worker has to forget anything."""
    assert read_projection(database) == EXPECTED
    written = "SELECT xmin, ctid FROM runs UNION ALL SELECT xmin, ctid FROM rollups_hourly"
    before = sorted(database.execute(written).fetchall(), key=str)

    found, findings = examine_runs(other)
    progress = rebuild_all(other)

    assert found == []
    assert findings.looked_at == progress.looked_at == len(EXPECTED.runs)
    assert (progress.runs, progress.rollups) == (0, 0)
    assert sorted(database.execute(written).fetchall(), key=str) == before
    assert generations(database) == [0] * SHARDS


@pytest.mark.usefixtures("history")
def test_damage_is_found_and_exactly_that_is_repaired(
    database: psycopg.Connection, other: psycopg.Connection
) -> None:
    """A row of each table, in each way that it can be wrong: each is one difference."""
    altered, lost, invented = "run 0", "run 3", "run never"
    database.execute(
        "UPDATE runs SET status = 'lost', input_tokens = 1 WHERE shard = %s AND run = %s",
        place_of(altered),
    )
    database.execute("DELETE FROM runs WHERE shard = %s AND run = %s", place_of(lost))
    database.execute(
        """
        INSERT INTO runs
            (shard, run, created_at, last_event_at, change_seq, status, project, workflow)
        VALUES (%s, %s, now(), now(), 0, 'running', 'acme', 'none')
        """,
        place_of(invented),
    )
    [node] = database.execute(
        """
        UPDATE nodes SET status = 'skipped', duration_us = 1
        WHERE (shard, run) = (%s, %s) AND node = 'step 1' AND attempt = 1 RETURNING status
        """,
        place_of("run 6"),
    ).fetchall()
    assert node == ("skipped",)
    database.execute(
        "DELETE FROM nodes WHERE (shard, run) = (%s, %s) AND node = 'step 0'", place_of("run 9")
    )
    database.execute(
        """
        UPDATE rollups_hourly SET n = n + 1, bin_counts[1] = bin_counts[1] + 2
        WHERE (workflow, node, status, shard, hour, project) = (
            SELECT workflow, node, status, shard, hour, project FROM rollups_hourly
            WHERE node = '' AND duration_count > 0 ORDER BY 1, 2, 3, 4, 5, 6 LIMIT 1
        )
        """
    )
    database.execute(
        """
        INSERT INTO rollups_hourly (workflow, project, node, hour, status, shard, n)
        VALUES ('none', 'acme', '', '2026-01-01T00:00Z', 'failed', 0, 7)
        """
    )
    first_steps = sum(
        name == "step 0" and run == run_key("run 9").bytes for _, run, name, _ in EXPECTED.nodes
    )

    found, findings = examine_runs(other)

    assert sorted((each.table, each.what) for each in found) == sorted(
        [("runs", "differs"), ("runs", "missing"), ("runs", "surplus"), ("nodes", "differs")]
        + [("nodes", "missing")] * first_steps
        + [("rollups_hourly", "differs"), ("rollups_hourly", "surplus")]
    )
    [of_run] = [each for each in found if each.of.get("run") == altered]
    row = EXPECTED.runs[shard_of(altered, SHARDS), run_key(altered).bytes]
    assert [(field.name, field.found, field.expected) for field in of_run.fields] == [
        ("status", "lost", row.status),
        ("input_tokens", 1, row.input_tokens),
    ]
    assert read_projection(database) != EXPECTED

    assert repair(other, findings, NEVER_STOP) == len(found)
    assert read_projection(database) == EXPECTED
    assert find_mismatches(other) == []


@pytest.mark.usefixtures("history")
def test_a_day_that_is_not_the_sum_of_its_hours(
    database: psycopg.Connection, other: psycopg.Connection
) -> None:
    """It is found, and added up again."""
    before = database.execute(DAYS).fetchall()
    place = database.execute(
        """
        UPDATE rollups_daily SET failed = failed + 1
        WHERE (workflow, project, day, shard) = (
            SELECT workflow, project, day, shard FROM rollups_daily ORDER BY 1, 2, 3, 4 LIMIT 1
        )
        RETURNING shard, day
        """
    ).fetchone()
    assert place is not None
    found, findings = examine_runs(other)
    assert [(each.table, each.what, each.shard) for each in found] == [
        ("rollups_daily", "differs", place[0])
    ]
    assert repair(other, findings, NEVER_STOP) == 1
    assert database.execute(DAYS).fetchall() == before
    assert find_mismatches(other) == []


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("table", ["runs", "nodes", "rollups_hourly", "rollups_daily"])
def test_an_empty_table_is_filled_again(
    database: psycopg.Connection, other: psycopg.Connection, table: str
) -> None:
    """The ledger is enough."""
    days = database.execute(DAYS).fetchall()
    database.execute(f"DELETE FROM {table}")
    rebuild_all(other)
    assert read_projection(database) == EXPECTED
    assert database.execute(DAYS).fetchall() == days


@pytest.mark.usefixtures("history")
def test_only_what_is_selected_is_rebuilt(
    database: psycopg.Connection, other: psycopg.Connection
) -> None:
    """One run, a project, a workflow, a time: with the statistics in which they count."""
    database.execute("UPDATE runs SET input_tokens = input_tokens + 1")
    database.execute("UPDATE rollups_hourly SET n = n + 1")
    key = (shard_of("run 0", SHARDS), run_key("run 0").bytes)

    assert rebuild_all(other, Selection.of(SHARDS, run="run 0")).runs == 1
    found = read_projection(database)
    assert [ref for ref, row in found.runs.items() if row == EXPECTED.runs[ref]] == [key]

    rebuild_all(other, Selection.of(SHARDS, workflow="etl", project="acme"))
    found = read_projection(database)
    for ref, row in found.runs.items():
        wanted = (row.workflow, row.project) == ("etl", "acme") or ref == key
        assert (row == EXPECTED.runs[ref]) == wanted
    mended = [key for key, stat in found.stats.items() if stat == EXPECTED.stats[key]]
    assert {("etl", "acme")} <= {(each.workflow, each.project) for each in mended}
    assert all(
        stat == EXPECTED.stats[each]
        for each, stat in found.stats.items()
        if (each.workflow, each.project) == ("etl", "acme")
    )
    assert len(mended) < len(EXPECTED.stats)

    middle = NOON_US + HOUR_US
    [(moment,)] = database.execute("SELECT to_timestamp(%s)", (middle / 1e6,)).fetchall()
    rebuild_all(other, Selection.of(SHARDS, until=moment))
    found = read_projection(database)
    assert all(r == EXPECTED.runs[ref] for ref, r in found.runs.items() if r.created_us < middle)
    assert found != EXPECTED
    rebuild_all(other, Selection.of(SHARDS, since=moment))
    assert read_projection(database) == EXPECTED


def test_last_event_at_of_heartbeats_is_preserved(
    database: psycopg.Connection, other: psycopg.Connection, migrated_url: str
) -> None:
    """`last_event_at` never goes back to the ledger's newest event; an earlier one moves on."""
    told: list[Event] = [
        {"type": "started", "run": "quiet", "id": 0, "at_us": NOON_US, "workflow": "w"},
        {"type": "heartbeat", "run": "quiet", "id": 1, "at_us": NOON_US + 9},
    ]
    fold(migrated_url, told)
    expected = project(told, SHARDS)
    database.execute("UPDATE runs SET workflow = 'damaged'")
    rebuild_all(other)
    assert read_projection(database) == expected

    database.execute("UPDATE runs SET last_event_at = created_at - interval '1 s'")
    [difference] = find_mismatches(other)
    assert [field.name for field in difference.fields] == ["last_event_at"]


@pytest.mark.usefixtures("history")
def test_a_rebuild_that_was_interrupted_goes_on_where_it_was(
    database: psycopg.Connection, migrated_url: str
) -> None:
    """After every chunk, each time by another process: no run is looked at twice."""
    database.execute("UPDATE runs SET attempt = 9")
    database.execute("UPDATE rollups_hourly SET n = n + 1")
    job = add_job(database, "rebuild", ALL_RUNS.as_arguments())
    stop = threading.Event()
    stop.set()
    starts = 0
    while True:
        starts += 1
        with connections.connect(migrated_url, autocommit=True) as connection:
            try:
                progress = rebuild(connection, job, stop, chunk_runs=10, span_runs=1)
            except JobInterrupted:
                found = read_job(database, job)
                assert found is not None
                assert found.status == "running"
            else:
                break
    assert starts > len(EXPECTED.runs) / 10
    assert progress.looked_at == progress.runs == len(EXPECTED.runs)
    assert read_projection(database) == EXPECTED
    found = read_job(database, job)
    assert found is not None
    assert (found.status, found.error) == ("completed", None)
    assert found.result == {
        "runs": len(EXPECTED.runs),
        "rollups": len(EXPECTED.stats),
        "of": len(EXPECTED.runs),
        "unreadable": 0,
    }


@pytest.mark.usefixtures("history")
def test_two_do_not_work_on_one_job(
    database: psycopg.Connection, other: psycopg.Connection
) -> None:
    """The second is told; when the first one's connection is gone, it may."""
    job = add_job(database, "rebuild", ALL_RUNS.as_arguments())
    with lock_job(database, job), pytest.raises(JobLocked):
        rebuild(other, job, NEVER_STOP)
    assert rebuild(other, job, NEVER_STOP).looked_at == len(EXPECTED.runs)


def test_an_unreadable_ledger_is_reported_and_unchanged(
    database: psycopg.Connection, other: psycopg.Connection, migrated_url: str
) -> None:
    """Nobody can tell what such a run should be; others are rebuilt all the same."""
    told: list[Event] = [
        {"type": "started", "run": run, "id": 0, "at_us": NOON_US, "workflow": "w"}
        for run in ("broken", "whole")
    ]
    fold(migrated_url, told)
    before = read_projection(database)
    shard, key = place_of("broken")
    body = '{"run": "broken", "workflow": 7}'
    database.execute(
        "UPDATE events SET body = %s WHERE (shard, run) = (%s, %s)", (body, shard, key)
    )
    database.execute("UPDATE runs SET attempt = 5")

    found = find_mismatches(other)
    assert [(d.table, d.what, d.of["run"]) for d in found if d.table == "events"] == [
        ("events", "unreadable", "broken")
    ]
    assert rebuild_all(other).unreadable == 1
    rows = read_projection(database).runs
    assert rows[shard, key.bytes].attempt == 5
    ref = (shard_of("whole", SHARDS), run_key("whole").bytes)
    assert rows[ref] == before.runs[ref]


def test_rebuilding_while_events_arrive(
    redis_url: str, database: psycopg.Connection, other: psycopg.Connection, migrated_url: str
) -> None:
    """Rows that are damaged again and again while a worker folds end as they should."""
    events = [
        event for event in interleave_runs(random.Random(3), 6000) if event["type"] != "heartbeat"
    ]
    frames = make_frames(events, size=10)
    with connect(redis_url) as client:
        agree_on_shards(client, SHARDS)
        with run_fold_worker(redis_url, migrated_url, SHARDS):
            sender = Sender(redis_url, frames, pause_s=0.004, endless=True)
            sender.start()
            rounds = 0
            while rounds < 2 or sender.sent < sender.total:
                damage(database, rounds)
                rebuild_all(other)
                rounds += 1
            sender.finish()
            wait_until(lambda: is_folded(client, database), what="everything to be folded")
            rebuild_all(other)
            assert_exact(client, database, events)
            assert find_mismatches(other) == []
            assert max(generations(database)) > 0


def test_rebuilding_while_2000_events_a_second_arrive_and_runs_are_deleted(
    redis_url: str, database: psycopg.Connection, other: psycopg.Connection, migrated_url: str
) -> None:
    """Whole rebuilds of damaged tables meanwhile, and the end is as the definition has it."""
    events = [
        event
        for event in interleave_runs(random.Random(4), EVENTS_PER_S * SECONDS)
        if event["type"] != "heartbeat"
    ]
    deleted: set[str] = set()
    during: list[int] = []
    upkeep = Admin(migrated_url)
    with connect(redis_url) as client:
        agree_on_shards(client, SHARDS)
        with run_fold_worker(redis_url, migrated_url, SHARDS):
            sender = PacedSender(redis_url, events, events_per_s=EVENTS_PER_S)
            sender.start()
            while sender.is_alive():
                before = sender.sent
                damage(database, len(during))
                deleted |= delete_some(database, upkeep)
                rebuild_all(other)
                during.append(sender.sent - before)
            sender.join()
            wait_until(lambda: is_folded(client, database), what="everything to be folded")
            rebuild_all(other)

            assert sender.sent == len(events)
            assert len([n for n in during if n]) > 1, "events arrived within several rebuilds"
            assert len(deleted) > 1
            left = [event for event in events if event["run"] not in deleted]
            assert len(left) < len(events)
            assert_exact(client, database, left)
            assert find_mismatches(other) == []


def delete_some(database: psycopg.Connection, upkeep: Admin) -> set[str]:
    """Two runs of those that there are, of which more events may be on their way."""
    found = database.execute(
        "SELECT coalesce(external_id, run::text) FROM runs ORDER BY random() LIMIT 2"
    ).fetchall()
    return {run for (run,) in found if upkeep.delete_run(run)}


def damage(database: psycopg.Connection, round_: int) -> None:
    with database.transaction():
        # As whoever writes rows: else the order of their locks may cross that of a batch.
        database.execute("SELECT FROM positions ORDER BY shard FOR UPDATE")
        database.execute(
            "UPDATE runs SET status = 'lost', workflow = 'x' WHERE hashtext(run::text) %% 3 = %s",
            (round_ % 3,),
        )
        database.execute("DELETE FROM nodes WHERE hashtext(run::text) %% 7 = %s", (round_ % 7,))

"""Retention beside others: nobody has to wait, nothing that comes meanwhile is lost."""

import random
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from conditions import is_folded, run_fold_worker, wait_until
from expired_runs import (
    EVENTS,
    OLD_NAMED_RUNS,
    OLD_RUNS,
    events_of,
    find_archived,
    make_run,
    run_keys_of,
    run_retention,
    without_payloads,
)
from frame_delivery import SHARDS, Sender, fold, make_frames
from oracle import project
from rebuild_checks import find_mismatches
from runfold.protocol.ids import run_key
from runfold.protocol.streams import agree_on_shards, connect, shard_of
from runfold_storage.checkpoints.incidents import read_incidents
from runfold_storage.jobs import list_jobs
from runfold_storage.ledger.partitions import week_of
from runfold_storage.postgres import connections
from runfold_storage.retention import partition_expiry, run_expiry
from runfold_storage.retention.policies import Policy, apply_all_now, set_policy
from runfold_workers.consumer.committer import Committer
from runfold_workers.fold.frame_decoder import StreamEntry
from runfold_workers.jobs.queue import JobDispatcher, connect_queue, make_queue
from runfold_workers.retention.job import KIND, Progress
from table_reader import read_dead_letters, read_projection

pytestmark = pytest.mark.usefixtures("deployment")


def test_a_week_that_someone_reads_is_left_for_later(
    database: psycopg.Connection, migrated_url: str
) -> None:
    """It is an incident, nobody has to wait meanwhile, and the next time it goes."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy("acme", payload_days=30))
    with connections.connect(migrated_url) as reader:
        reader.execute("SELECT count(*) FROM events")
        wait_until(lambda: _is_old(database), what="the reader to have been at it for long")
        progress = run_retention(migrated_url, tries=1)
        assert progress.partitions == []
        assert progress.postponed
        fold(migrated_url, make_run(0.01), first=10_000)
    [incident] = read_incidents(database.execute)
    assert (incident.kind, incident.number) == ("retention_behind", len(progress.postponed))
    assert sorted(run_retention(migrated_url).partitions) == sorted(progress.postponed)


def _is_old(database: psycopg.Connection) -> bool:
    row = database.execute(
        """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'idle in transaction'
          AND xact_start < clock_timestamp() - interval '1500 ms'
        """
    ).fetchone()
    return row == (1,)


def test_a_run_that_comes_in_the_last_moment_is_put_back(
    database: psycopg.Connection,
    migrated_url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Imported into a week that was about to go, by a project that keeps everything."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy("acme", payload_days=30))
    late = make_run(100, "keeps")
    assert week_of(run_key(late[0]["run"])) == week_of(run_key(OLD_RUNS[0][0]["run"]))
    weeks_due = partition_expiry.weeks_due

    def look_then_import(*arguments: object) -> object:
        found = weeks_due(*arguments)  # type: ignore[arg-type]
        fold(migrated_url, late, first=10_000)
        return found

    monkeypatch.setattr(partition_expiry, "weeks_due", look_then_import)
    run_retention(migrated_url, tmp_path)
    assert not find_archived(tmp_path, late)
    assert find_archived(tmp_path, OLD_RUNS[0])
    expected = without_payloads(project([*EVENTS, *late], SHARDS), [*OLD_RUNS, *OLD_NAMED_RUNS])
    assert read_projection(database) == expected


def test_retention_is_noted_down_once_a_day(
    database: psycopg.Connection, migrated_url: str, redis_url: str
) -> None:
    """However often the chair changes hands; if the last one was not done, it is an incident."""
    with connect_queue(redis_url, None) as client:
        queue = make_queue(client)
        JobDispatcher(database, queue).turn()
        assert list_jobs(database) == []  # everything is kept for ever
        set_policy(database, Policy(None, payload_days=30))
        JobDispatcher(database, queue).turn()
        assert list_jobs(database) == []  # no policy holds yet
        apply_all_now(database)
        for _ in range(3):
            JobDispatcher(database, queue).turn()
        [job] = list_jobs(database)
        assert (job.kind, job.background) == (KIND, True)
        assert read_incidents(database.execute) == []
        database.execute("UPDATE jobs SET created_at = created_at - interval '1 day'")
        JobDispatcher(database, queue).turn()
        assert [each.kind for each in read_incidents(database.execute)] == ["retention_behind"]
        assert len(list_jobs(database)) == 1


def test_rows_go_unnoticed_by_a_worker(database: psycopg.Connection, migrated_url: str) -> None:
    """Whose numbers for watchers go on: none is given out twice, and no event is refused."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy(None, payload_days=30, run_days=65))
    apply_all_now(database)
    old = run_key(OLD_RUNS[0][0]["run"])
    shard = shard_of(OLD_RUNS[0][0]["run"], SHARDS)
    run_expiry.mark_expired(database, shard, [old], datetime.now(UTC), gone=False)
    run_expiry.add_expiry_tombstones(database, shard, [old])
    many = [make_run(0.01) for _ in range(99)]
    news = [run for run in many if shard_of(run[0]["run"], SHARDS) == shard]
    with connections.connect(migrated_url, autocommit=True) as connection:
        committer = Committer(connection)
        committer.own(range(SHARDS))
        for number, run in enumerate(news[:4], 20_000):
            [(_, fields)] = make_frames(run)
            committer.commit([StreamEntry(shard, f"{number}-0", fields)])
            run_expiry.delete_expired_rows(database, shard, [old])
    assert read_dead_letters(database) == []
    assert {key for _, key in read_projection(database).runs} >= run_keys_of(news[:4])


def test_the_fold_does_not_wait(
    database: psycopg.Connection, migrated_url: str, redis_url: str
) -> None:
    """Weeks are dropped under load, and no batch waits for a lock for longer than a second."""
    rng = random.Random(5)
    old = [make_run(rng.uniform(40, 300)) for _ in range(300)]
    fold(migrated_url, events_of(old))
    new = [make_run(0.01) for _ in range(2500)]
    events = events_of(new)
    set_policy(database, Policy(None, payload_days=30, run_days=35))
    longest = timedelta()
    with connect(redis_url) as client:
        agree_on_shards(client, SHARDS)
        with run_fold_worker(redis_url, migrated_url, SHARDS):
            sender = Sender(redis_url, make_frames(events, size=10), pause_s=0.004)
            sender.start()
            done = threading.Event()
            results: list[Progress] = []

            def work() -> None:
                results.append(run_retention(migrated_url))
                done.set()

            retention = threading.Thread(target=work)
            retention.start()
            while sender.is_alive() or not done.is_set():
                [(waited,)] = database.execute(
                    """
                    SELECT max(clock_timestamp() - l.waitstart)
                    FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
                    WHERE NOT l.granted AND a.datname = current_database()
                      AND a.query ILIKE ANY (ARRAY['COPY%', '%UPDATE positions%', 'INSERT%'])
                    """
                ).fetchall()
                longest = max(longest, waited or timedelta())
                done.wait(0.01)
            sender.join()
            retention.join()
            wait_until(lambda: is_folded(client, database), what="everything to be folded")
    assert longest < timedelta(seconds=1)
    [progress] = results
    assert len(progress.partitions) > 20
    assert progress.runs == len(old)
    assert read_dead_letters(database) == []
    found, expected = read_projection(database), project(events, SHARDS)
    assert (found.runs, found.nodes, found.ledger) == (
        *(expected.runs, expected.nodes),
        expected.ledger,
    )
    assert find_mismatches(database) == []

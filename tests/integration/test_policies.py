"""When a policy holds, and what it takes; late events of runs whose payloads have expired."""

from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import redis

from conditions import is_folded, run_in_thread, wait_until
from expired_runs import EVENTS, OLD_NAMED_RUNS, OLD_RUNS, run_retention, without_payloads
from frame_delivery import SHARDS, fold, make_frames
from oracle import Event, project
from rebuild_checks import NEVER_STOP, find_mismatches
from runfold_storage import History
from runfold_storage.jobs import add_job, list_jobs, read_job
from runfold_storage.postgres import connections
from runfold_storage.retention.policies import Policy, delete_policy, read_policies, set_policy
from runfold_workers.consumer.worker import Worker, WorkerSettings
from runfold_workers.retention.job import KIND, plan, retain
from service_threads import run_job_worker
from stream_frames import add_frame
from table_reader import count_rows, read_projection

pytestmark = pytest.mark.usefixtures("deployment")

AN_HOUR = timedelta(hours=1)


def holds_from(database: psycopg.Connection, project_: str | None = None) -> datetime:
    """When the policy of a project holds."""
    return next(each.holds_from for each in read_policies(database) if each.project == project_)


def let_hold_since(database: psycopg.Connection, project_: str | None = None) -> datetime:
    """As if the policy had been set long ago."""
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    of = project_ or ""
    database.execute("UPDATE retention SET holds_from = %s WHERE project = %s", (long_ago, of))
    return long_ago


def finish_a_turn(database: psycopg.Connection) -> None:
    """Wait until all that the workers for jobs had to do before is done."""
    last = add_job(database, "no such work", {}, background=True)

    def has_ended() -> bool:
        job = read_job(database, last)
        return job is not None and job.status == "failed"

    wait_until(has_ended, what="the workers for jobs to come to the last one")


def test_a_policy_that_is_set_deletes_nothing_at_once(
    database: psycopg.Connection, migrated_url: str, redis_url: str
) -> None:
    """Neither a first one nor one that becomes stricter; the daily run takes what is due then."""
    fold(migrated_url, EVENTS)
    before = read_projection(database)
    with run_job_worker(redis_url, migrated_url):
        set_policy(database, Policy(None, payload_days=30, run_days=50))
        finish_a_turn(database)
        assert read_projection(database) == before
        assert KIND not in {job.kind for job in list_jobs(database)}

        set_policy(database, Policy("acme", payload_days=1, run_days=1))
        set_policy(database, Policy("keeps"))
        let_hold_since(database)
        finish_a_turn(database)
        assert KIND in {job.kind for job in list_jobs(database)}
        assert read_projection(database) == before  # what was due is of a policy that waits

    let_hold_since(database, "acme")
    database.execute("DELETE FROM jobs")
    with run_job_worker(redis_url, migrated_url):
        wait_until(lambda: count_rows(database, "runs") < len(before.runs), what="the daily run")


def test_when_a_policy_holds(database: psycopg.Connection) -> None:
    """A stricter one from the next day on, an hour later at least; a more generous one at once."""
    set_policy(database, Policy(None, payload_days=30))
    first = holds_from(database)
    [now] = database.execute("SELECT now()").fetchone() or ()
    midnight = (
        (now + timedelta(days=1)).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    )
    assert midnight <= first <= max(midnight, now + AN_HOUR)
    assert first >= now + AN_HOUR - timedelta(minutes=5)

    since = let_hold_since(database)
    set_policy(database, Policy(None, payload_days=30))  # the same
    assert holds_from(database) == since
    set_policy(database, Policy(None, payload_days=60))
    assert holds_from(database) == since
    set_policy(database, Policy("acme", payload_days=90))  # than the others'
    assert holds_from(database, "acme") == since
    set_policy(database, Policy("acme", payload_days=90, run_days=100))
    assert holds_from(database, "acme") > now
    set_policy(database, Policy("acme", payload_days=91, run_days=100))  # than one that waits
    assert holds_from(database, "acme") > now

    assert holds_from(database) == since
    assert delete_policy(database, "acme")  # so that the others' holds, which takes more
    assert holds_from(database) > now


def test_a_policy_that_waits_keeps_its_project_from_a_run_that_goes_on(
    database: psycopg.Connection, migrated_url: str
) -> None:
    """The job of the day may have been left, with all that it had found to be due."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy(None, payload_days=30))
    let_hold_since(database)
    set_policy(database, Policy(None, payload_days=30, run_days=50))
    assert plan(database).runs == len([*OLD_RUNS, *OLD_NAMED_RUNS]) + 1
    with connections.connect(migrated_url, autocommit=True) as connection:
        progress = retain(connection, add_job(connection, KIND, {}), NEVER_STOP)
    assert (progress.payloads, progress.runs) == (0, 0)


def test_a_policy_that_is_not_set_can_be_tried(
    database: psycopg.Connection, migrated_url: str
) -> None:
    """What it would take, of its project alone; nothing is written."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy("acme", payload_days=90, run_days=90))
    before = database.execute("SELECT * FROM retention").fetchall()
    of_acme = plan(database, Policy("acme", payload_days=30, run_days=75, stats_days=90))
    assert (of_acme.payloads, of_acme.runs) == (5, 3)
    assert (of_acme.hours, of_acme.rollups) == (2, 4)
    of_others = plan(database, Policy(None, payload_days=30))
    assert (of_others.payloads, of_others.runs, of_others.rollups) == (1, 0, 0)
    assert database.execute("SELECT * FROM retention").fetchall() == before
    assert read_projection(database) == project(EVENTS, SHARDS)


def send(client: redis.Redis, events: Iterable[Event]) -> None:
    for shard, fields in make_frames(list(events)):
        add_frame(client, shard, fields)


@pytest.mark.parametrize("remembers", [True, False])
@pytest.mark.parametrize("archives", [True, False])
def test_late_events_of_an_expired_run_are_ignored_whatever_a_worker_remembers(
    client: redis.Redis,
    database: psycopg.Connection,
    redis_url: str,
    migrated_url: str,
    tmp_path: Path,
    remembers: bool,
    archives: bool,
) -> None:
    """They change nothing, the label stays as it was, and they are counted. One of the runs is in a
    week of the ledger that goes as a whole, the other loses its events alone."""
    archive = str(tmp_path) if archives else None
    late: list[Event] = [
        {**run[0], **event}
        for run in (OLD_RUNS[0], OLD_NAMED_RUNS[0])
        for event in (
            {"type": "annotated", "id": 77, "tags": {"late": "yes"}},
            {"type": "logged", "id": 78, "text": "late"},
        )
    ]

    def fold_all() -> None:
        wait_until(lambda: is_folded(client, database), what="everything to be folded")

    with ExitStack() as stack:
        worker = Worker(WorkerSettings(redis_url, migrated_url, SHARDS))
        stack.enter_context(run_in_thread(worker))
        send(client, EVENTS)
        fold_all()
        if not remembers:
            stack.close()
        set_policy(database, Policy("acme", payload_days=30))
        run_retention(migrated_url, archive)
        if not remembers:
            worker = Worker(WorkerSettings(redis_url, migrated_url, SHARDS))
            stack.enter_context(run_in_thread(worker))
        send(client, late)
        fold_all()
    ignored = sum(
        sample.value
        for family in worker.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "runfold_worker_events_ignored_total"
        and sample.labels["reason"] == "expired"
    )
    assert ignored == len(late)
    expected = without_payloads(project(EVENTS, SHARDS), [*OLD_RUNS, *OLD_NAMED_RUNS])
    assert read_projection(database) == expected
    assert find_mismatches(database) == []
    with History(migrated_url, archive_url=archive) as history:
        for run in (OLD_RUNS[0], OLD_NAMED_RUNS[0]):
            detail = history.run(run[0]["run"])
            assert detail is not None
            assert detail.payloads == ("archived" if archives else "removed")
            assert detail.tags == {}

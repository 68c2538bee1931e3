"""Retention: what is due goes, the rest stays, figures stay, and nobody has to wait."""

import random
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from deliveries import SHARDS, Sender, framed
from oracle import Event, Projection, project
from runfold.ids import make_run_id, run_key
from runfold.streams import agree_on_shards, connect, shard_of
from runfold_storage import aging, databases
from runfold_storage.batches import prepare_session
from runfold_storage.deletions import delete_run
from runfold_storage.errors import BadParameter
from runfold_storage.incidents import read_incidents
from runfold_storage.jobs import add_job, list_jobs
from runfold_storage.partitions import existing_partitions, partition_name, week_of
from runfold_storage.positions import ensure_shards
from runfold_storage.retention import Policy, forget_policy, read_policies, set_policy
from runfold_workers import retaining
from runfold_workers.arrivals import StreamEntry
from runfold_workers.committing import Committer
from runfold_workers.handing_out import HandingOut
from runfold_workers.queueing import connect_queue, make_queue
from runfold_workers.rebuilding import rebuild
from runfold_workers.repairing import examine
from runfold_workers.retaining import KIND, Progress, plan, retain
from runfold_workers.selecting import Selection
from tables import dead_letters, read_projection
from waiting import is_folded, wait_until, worker_thread

DAY_US = 86_400_000_000
NOW_US = int(datetime.now(UTC).timestamp() * 1e6)
EVERYTHING = Selection(shards=SHARDS)
NEVER = threading.Event()


def a_run(days_ago: float, project_: str = "acme", given_id: str | None = None) -> list[Event]:
    """One that ended so many days ago, with a node."""
    at_us = NOW_US - int(days_ago * DAY_US)
    run = given_id or make_run_id(at_us)
    common = {"run": run}
    return [
        {
            **common,
            "type": "started",
            "id": 0,
            "at_us": at_us,
            "workflow": "w",
            "project": project_,
        },
        {**common, "type": "node_started", "id": 1, "at_us": at_us + 1000, "node": "n"},
        {
            **common,
            "type": "node_finished",
            "id": 2,
            "at_us": at_us + 2000,
            "node": "n",
            "status": "completed",
        },
        {**common, "type": "completed", "id": 3, "at_us": at_us + 3000},
    ]


OLD = [a_run(days) for days in (100, 99.5, 70, 60)]
OLD_OWN = [a_run(80, given_id="nightly/7")]
KEPT_PROJECT = [a_run(61, "keeps")]
YOUNG = [a_run(days) for days in (3, 2, 0.1)]
RUNS = [*OLD, *OLD_OWN, *KEPT_PROJECT, *YOUNG]
EVENTS = [event for run in RUNS for event in run]


@pytest.fixture
def database(migrated_url: str) -> Iterator[psycopg.Connection]:
    with databases.connect(migrated_url, autocommit=True) as connection:
        ensure_shards(connection, SHARDS)
        prepare_session(connection)
        yield connection


def fold(url: str, events: Iterable[Event], first: int = 1) -> None:
    with databases.connect(url, autocommit=True) as connection:
        committer = Committer(connection)
        committer.own(range(SHARDS))
        frames = enumerate(framed(list(events)), first)
        committer.commit([StreamEntry(shard, f"{n}-0", fields) for n, (shard, fields) in frames])


def run_retention(url: str) -> Progress:
    with databases.connect(url, autocommit=True) as connection:
        return retain(connection, add_job(connection, KIND, {}), NEVER)


def keys(runs: Iterable[list[Event]]) -> set[bytes]:
    return {run_key(run[0]["run"]).bytes for run in runs}


def without_payloads(expected: Projection, gone: Iterable[list[Event]]) -> Projection:
    """Everything but the events of these."""
    left = keys(gone)
    ledger = {ref: event for ref, event in expected.ledger.items() if ref[1] not in left}
    return Projection(expected.runs, expected.nodes, expected.stats, ledger)


def without_rows(expected: Projection, gone: Iterable[list[Event]]) -> Projection:
    """Everything but events, runs and nodes of these."""
    left = keys(gone)
    return Projection(
        {ref: row for ref, row in expected.runs.items() if ref[1] not in left},
        {ref: row for ref, row in expected.nodes.items() if ref[1] not in left},
        expected.stats,
        without_payloads(expected, gone).ledger,
    )


def differences(url: str) -> list[object]:
    found: list[object] = []
    with databases.connect(url, autocommit=True) as connection:
        examine(connection, EVERYTHING, found.append)
    return found


def test_payloads_that_are_due_go(database: psycopg.Connection, migrated_url: str) -> None:
    """Rows and figures stay; a week of which nothing is left goes as a whole."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy("acme", payload_days=30))
    weeks = [partition_name(week_of(run_key(run[0]["run"]))) for run in OLD]
    shared = partition_name(week_of(run_key(KEPT_PROJECT[0][0]["run"])))

    due = plan(database, datetime.now(UTC))
    assert (due.payloads, due.runs, due.rollups) == (len(OLD) + 1, 0, 0)
    assert due.partitions == sorted(set(weeks) - {shared})

    progress = run_retention(migrated_url)
    assert progress.payloads == len(OLD) + 1
    assert progress.partitions == due.partitions
    assert existing_partitions(database).isdisjoint(due.partitions)
    assert shared in existing_partitions(database)
    expected = without_payloads(project(EVENTS, SHARDS), [*OLD, *OLD_OWN])
    assert read_projection(database) == expected
    again = run_retention(migrated_url)
    assert (again.payloads, again.partitions) == (0, [])

    assert differences(migrated_url) == []
    with databases.connect(migrated_url, autocommit=True) as connection:
        job = add_job(connection, "rebuild", EVERYTHING.as_arguments())
        rebuild(connection, job, NEVER)
    assert read_projection(database) == expected


def test_rows_that_are_due_go_and_their_figures_stay(
    database: psycopg.Connection, migrated_url: str
) -> None:
    """Neither a rebuild nor a late event changes that."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy(None, payload_days=30, run_days=65))
    set_policy(database, Policy("keeps"))
    gone = [*OLD[:3], *OLD_OWN]
    progress = run_retention(migrated_url)
    assert (progress.payloads, progress.runs) == (len(OLD) + 1, len(gone))
    expected = without_rows(without_payloads(project(EVENTS, SHARDS), [*OLD, *OLD_OWN]), gone)
    assert read_projection(database) == expected

    late = [{**run[0], "type": "annotated", "id": 77} for run in (OLD[0], OLD[3], OLD_OWN[0])]
    again = [event for run in OLD for event in run]
    fold(migrated_url, [*late, *again], first=10_000)
    with databases.connect(migrated_url, autocommit=True) as connection:
        job = add_job(connection, "rebuild", EVERYTHING.as_arguments())
        rebuild(connection, job, NEVER)
    assert read_projection(database) == expected
    assert differences(migrated_url) == []


def test_figures_that_are_due_go(database: psycopg.Connection, migrated_url: str) -> None:
    """Those of whole hours, behind the rows."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy(None, payload_days=30, run_days=50, stats_days=90))
    rollups = len(project([event for run in OLD[:2] for event in run], SHARDS).stats)
    assert plan(database, datetime.now(UTC)).rollups == rollups
    assert run_retention(migrated_url).rollups == rollups
    hours = {key.hour_us for key in read_projection(database).stats}
    assert min(hours) > NOW_US - 90 * DAY_US
    assert differences(migrated_url) == []


def test_what_has_lost_its_payloads_can_be_deleted(
    database: psycopg.Connection, migrated_url: str
) -> None:
    """And leaves the figures, as any other."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy(None, payload_days=1))
    run_retention(migrated_url)
    assert delete_run(database, OLD[0][0]["run"])
    left = project([event for run in RUNS[1:] for event in run], SHARDS)
    found = read_projection(database)
    assert (found.runs, found.nodes, found.stats) == (left.runs, left.nodes, left.stats)
    assert differences(migrated_url) == []


def test_policies(database: psycopg.Connection) -> None:
    """Of each project its own, else the one of all others; never one that cannot be."""
    with pytest.raises(BadParameter, match="run_days"):
        set_policy(database, Policy("acme", payload_days=30, run_days=29))
    with pytest.raises(BadParameter, match="run_days"):
        set_policy(database, Policy("acme", run_days=29))
    with pytest.raises(BadParameter, match="payload_days"):
        set_policy(database, Policy("acme", payload_days=0))
    policies = [Policy(None, 30), Policy("acme", 7, 90, None)]
    for policy in policies:
        set_policy(database, policy)
    assert read_policies(database) == policies
    assert forget_policy(database, "acme")
    assert not forget_policy(database, "acme")
    assert read_policies(database) == policies[:1]


def test_a_week_that_someone_reads_is_left_for_later(
    database: psycopg.Connection, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an incident, nobody has to wait meanwhile, and the next time it goes."""
    monkeypatch.setattr(retaining, "TRIES", 1)
    fold(migrated_url, EVENTS)
    set_policy(database, Policy("acme", payload_days=30))
    with databases.connect(migrated_url) as reader:
        reader.execute("SELECT count(*) FROM events")
        wait_until(lambda: _is_old(database), what="the reader to have been at it for long")
        progress = run_retention(migrated_url)
        assert progress.partitions == []
        assert progress.postponed
        fold(migrated_url, a_run(0.01), first=10_000)
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
    database: psycopg.Connection, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Imported into a week that was about to go, by a project that keeps everything."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy("acme", payload_days=30))
    late = a_run(100, "keeps")
    assert week_of(run_key(late[0]["run"])) == week_of(run_key(OLD[0][0]["run"]))
    weeks_due = retaining.aging.weeks_due

    def look_then_import(*arguments: object) -> object:
        found = weeks_due(*arguments)  # type: ignore[arg-type]
        fold(migrated_url, late, first=10_000)
        return found

    monkeypatch.setattr(retaining.aging, "weeks_due", look_then_import)
    archived: list[str] = []
    with databases.connect(migrated_url, autocommit=True) as connection:
        job = add_job(connection, KIND, {})
        progress = retain(connection, job, NEVER, before_drop=archived.append)
    assert archived == [f"{name}_detached" for name in progress.partitions]
    expected = without_payloads(project([*EVENTS, *late], SHARDS), [*OLD, *OLD_OWN])
    assert read_projection(database) == expected


def test_retention_is_noted_down_once_a_day(
    database: psycopg.Connection, migrated_url: str, redis_url: str
) -> None:
    """However often the chair changes hands; if the last one was not done, it is an incident."""
    with connect_queue(redis_url, None) as client:
        queue = make_queue(client)
        HandingOut(database, queue).turn()
        assert list_jobs(database) == []  # everything is kept for ever
        set_policy(database, Policy(None, payload_days=30))
        for _ in range(3):
            HandingOut(database, queue).turn()
        [job] = list_jobs(database)
        assert (job.kind, job.background) == (KIND, True)
        assert read_incidents(database.execute) == []
        database.execute("UPDATE jobs SET created_at = created_at - interval '1 day'")
        HandingOut(database, queue).turn()
        assert [each.kind for each in read_incidents(database.execute)] == ["retention_behind"]
        assert len(list_jobs(database)) == 1


def test_rows_go_unnoticed_by_a_worker(database: psycopg.Connection, migrated_url: str) -> None:
    """Whose numbers for watchers go on: none is given out twice, and no event is refused."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy(None, payload_days=30, run_days=65))
    old = run_key(OLD[0][0]["run"])
    shard = shard_of(OLD[0][0]["run"], SHARDS)
    aging.mark(database, shard, [old], datetime.now(UTC), gone=False)
    aging.bury_aged(database, shard, [old])
    many = [a_run(0.01) for _ in range(99)]
    news = [run for run in many if shard_of(run[0]["run"], SHARDS) == shard]
    with databases.connect(migrated_url, autocommit=True) as connection:
        committer = Committer(connection)
        committer.own(range(SHARDS))
        for number, run in enumerate(news[:4], 20_000):
            [(_, fields)] = framed(run)
            committer.commit([StreamEntry(shard, f"{number}-0", fields)])
            aging.remove_rows(database, shard, [old])
    assert dead_letters(database) == []
    assert {key for _, key in read_projection(database).runs} >= keys(news[:4])


def test_the_fold_does_not_wait(
    database: psycopg.Connection, migrated_url: str, redis_url: str
) -> None:
    """Weeks are dropped under load, and no batch waits for a lock for longer than a second."""
    rng = random.Random(5)
    old = [a_run(rng.uniform(40, 300)) for _ in range(300)]
    fold(migrated_url, [event for run in old for event in run])
    new = [a_run(0.01) for _ in range(2500)]
    events = [event for run in new for event in run]
    set_policy(database, Policy(None, payload_days=30, run_days=35))
    longest = timedelta()
    with connect(redis_url) as client:
        agree_on_shards(client, SHARDS)
        with worker_thread(redis_url, migrated_url, SHARDS):
            sender = Sender(redis_url, framed(events, size=10), pause_s=0.004)
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
    assert dead_letters(database) == []
    found, expected = read_projection(database), project(events, SHARDS)
    assert (found.runs, found.nodes, found.ledger) == (
        *(expected.runs, expected.nodes),
        expected.ledger,
    )
    assert differences(migrated_url) == []

"""Connections that are cut, swallowed and slowed between all parts: the tables stay exact."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from acceptance.worker_processes import StartWorker
from conditions import is_folded, wait_until
from frame_delivery import (
    SHARDS,
    Sender,
    assert_exact,
    connect_to,
    count_consumed_frames,
    interleave_runs,
    make_frames,
)
from network import Link
from runfold import Recorder
from runfold.protocol.streams import agree_on_shards, connect

EVENTS = 6000
RUNS = 400

Fault = Callable[[Link], None]


def cut(link: Link) -> None:
    """In the middle of whatever is on its way."""
    link.cut()


def swallow(link: Link) -> None:
    """For a while nothing comes through; then it does, late."""
    link.stop()
    time.sleep(1)
    link.resume()


def swallow_and_cut(link: Link) -> None:
    """As if a machine between them had failed: nothing ever arrives."""
    link.stop()
    time.sleep(1)
    link.cut()
    link.resume()


def slow(link: Link) -> None:
    """Every packet takes its time."""
    link.slow(0.05)
    time.sleep(1)
    link.resume()


FAULTS = (cut, swallow, swallow_and_cut, slow)


@pytest.fixture
def redis_link(redis_url: str) -> Iterator[Link]:
    with Link(urlsplit(redis_url).path) as link:
        yield link


@pytest.fixture
def database_link(migrated_url: str) -> Iterator[Link]:
    parts = conninfo_to_dict(migrated_url)
    with Link(str(Path(str(parts["host"])) / f".s.PGSQL.{parts['port']}")) as link:
        yield link


def redis_through(link: Link) -> str:
    return f"redis://127.0.0.1:{link.port}/0"


def database_through(link: Link, url: str) -> str:
    parts = conninfo_to_dict(url)
    return f"postgresql://{parts['user']}@127.0.0.1:{link.port}/{parts['dbname']}"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_behind_bad_networks(
    fault: Fault,
    start_worker: StartWorker,
    redis_url: str,
    migrated_url: str,
    redis_link: Link,
    database_link: Link,
) -> None:
    """On its way to Redis and to PostgreSQL in turns, again and again, while events come in."""
    rng = random.Random(23)
    events = interleave_runs(rng, EVENTS)
    with connect(redis_url) as client, connect_to(migrated_url) as database:
        agree_on_shards(client, SHARDS)
        worker = start_worker(
            redis_through(redis_link), database_through(database_link, migrated_url)
        )
        sender = Sender(redis_url, make_frames(events), pause_s=0.025, endless=True)
        sender.start()
        for link in (redis_link, database_link, redis_link, database_link):
            before = count_consumed_frames(database)
            wait_until(lambda: count_consumed_frames(database) > before, what="progress")  # noqa: B023
            time.sleep(rng.uniform(0, 0.3))
            fault(link)
        sender.finish()
        assert_exact(client, database, events)
        worker.assert_lives()


def test_sessions_that_postgresql_ends(
    start_worker: StartWorker, redis_url: str, migrated_url: str
) -> None:
    """An administrator, or a fail-over, ends each of the worker's sessions, busy or not."""
    rng = random.Random(24)
    events = interleave_runs(rng, EVENTS)
    with connect(redis_url) as client, connect_to(migrated_url) as database:
        agree_on_shards(client, SHARDS)
        worker = start_worker(redis_url, migrated_url)
        sender = Sender(redis_url, make_frames(events), pause_s=0.025, endless=True)
        sender.start()
        for _ in range(4):
            before = count_consumed_frames(database)
            wait_until(lambda: count_consumed_frames(database) > before, what="progress")  # noqa: B023
            time.sleep(rng.uniform(0, 0.3))
            ended = database.execute(
                """
                SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()
                """
            ).fetchone()
            assert ended != (0,)
        sender.finish()
        assert_exact(client, database, events)
        worker.assert_lives()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_runner_behind_a_bad_network(
    fault: Fault,
    start_worker: StartWorker,
    redis_url: str,
    migrated_url: str,
    redis_link: Link,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Runs that it recorded meanwhile are all there, each event once; the runner never waited."""
    monkeypatch.setenv("RUNFOLD_SPOOL_DIR", str(tmp_path / "spool"))
    worker = start_worker(redis_url, migrated_url)
    # Less patient than by default, so that swallowed replies end in doubt and repetition.
    recorder = Recorder(
        redis_through(redis_link), heartbeat_s=0, connect=lambda url: connect(url, timeout_s=0.3)
    )
    recording = threading.Thread(target=record_runs, args=(recorder,))
    recording.start()
    for _ in range(3):
        time.sleep(0.3)
        fault(redis_link)
    recording.join(60)
    flushed = recorder.close(60)
    assert (flushed.pending, flushed.dropped) == (0, 0)
    assert flushed.sent + flushed.spooled == 4 * RUNS
    with Recorder(redis_url, heartbeat_s=0) as later, later.run("last"):
        pass
    with connect(redis_url) as client, connect_to(migrated_url) as database:
        wait_until(lambda: is_complete(database), what="every run to be complete")
        wait_until(lambda: is_folded(client, database), what="everything to be folded")
        count = "SELECT count(*), count(DISTINCT (run, id)) FROM events"
        assert database.execute(count).fetchone() == (4 * RUNS + 2, 4 * RUNS + 2)
        totals = (
            "SELECT sum(total)::int FROM hourly_stats WHERE node IS NULL AND status = 'completed'"
        )
        assert database.execute(totals).fetchone() == (RUNS + 1,)
    worker.assert_lives()


def record_runs(recorder: Recorder) -> None:
    for number in range(RUNS):
        with recorder.run("w", inputs={"number": number}) as run, run.node("n"):
            time.sleep(0.01)


def is_complete(database: psycopg.Connection) -> bool:
    found = database.execute("SELECT count(*) FROM runs WHERE status = 'completed'").fetchone()
    return found == (RUNS + 1,)

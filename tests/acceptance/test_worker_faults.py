"""Real workers that are killed, and servers that go away under them: nothing is lost or doubled."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
import redis

from histories import made_up_runs, to_fields
from oracle import Event, project, to_envelope
from runfold.streams import agree_on_shards, connect, shard_of, stream_key
from runfold_stack.postgres_server import PostgresServer
from runfold_stack.redis_server import RedisServer
from runfold_storage import databases
from runfold_storage.migrate import migrate
from runfold_storage.positions import load_positions
from tables import dead_letters, read_projection
from waiting import is_folded, wait_until

SHARDS = 4
EVENTS = 20_000
RUNFOLD = Path(sys.executable).with_name("runfold")

Frame = tuple[int, dict[bytes, bytes]]


class WorkerProcess:
    """`runfold worker`, as an operator starts it."""

    def __init__(self, redis_url: str, database_url: str, log: Path) -> None:
        self._log = log
        environment = os.environ | {
            "RUNFOLD_REDIS_URL": redis_url,
            "RUNFOLD_DATABASE_URL": database_url,
        }
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [RUNFOLD, "worker"], env=environment, stdout=file, stderr=file
            )

    def kill(self) -> None:
        """As a crash would."""
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> int:
        """As an operator would; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def assert_lives(self) -> None:
        assert self.process.poll() is None, self._log.read_text()


StartWorker = Callable[[str, str], WorkerProcess]


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Workers that end with the test."""
    started: list[WorkerProcess] = []

    def start(redis_url: str, database_url: str) -> WorkerProcess:
        started.append(WorkerProcess(redis_url, database_url, tmp_path / "worker.log"))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


class Sender(threading.Thread):
    """Sends frames in their order; after an error it sends the latest ones again, and goes on.

    More than the one that failed, for a Redis that crashed may have lost what it had confirmed
    within the last second.
    """

    def __init__(self, redis_url: str, frames: Sequence[Frame], *, pause_s: float) -> None:
        super().__init__()
        self._url = redis_url
        self._frames = frames
        self._pause_s = pause_s
        self.failures = 0
        self.sent = 0

    def run(self) -> None:
        client = connect(self._url)
        number = 0
        while number < len(self._frames):
            shard, fields = self._frames[number]
            try:
                client.xadd(stream_key(shard), fields)
            except redis.RedisError:
                self.failures += 1
                number = max(number - 200, 0)
                time.sleep(0.1)
            else:
                self.sent += 1
                number += 1
                time.sleep(self._pause_s)
        client.close()


def interleaved(rng: random.Random, events: int) -> list[Event]:
    """Runs side by side, each in its own order, and some events a second time."""
    runs = made_up_runs(seed=rng.randrange(1000), events=events)
    upcoming = [iter(run) for run in runs]
    turns = [index for index, run in enumerate(runs) for _ in run]
    rng.shuffle(turns)
    merged: list[Event] = []
    for index in turns:
        merged.append(next(upcoming[index]))
        if rng.random() < 0.02:
            merged.append(rng.choice(merged[-500:]))
    return merged


def framed(events: Sequence[Event], size: int = 40) -> list[Frame]:
    """Packed frames of so many events."""
    frames: list[Frame] = []
    waiting: dict[int, list[Event]] = {shard: [] for shard in range(SHARDS)}
    for event in events:
        of_shard = waiting[shard_of(event["run"], SHARDS)]
        of_shard.append(event)
        if len(of_shard) == size:
            frames.append((shard_of(event["run"], SHARDS), fields_of(of_shard)))
            of_shard.clear()
    return frames + [(shard, fields_of(left)) for shard, left in waiting.items() if left]


def fields_of(events: Sequence[Event]) -> dict[bytes, bytes]:
    return to_fields(map(to_envelope, events), packed=True)


def look_into(url: str) -> psycopg.Connection:
    """A connection to read the tables with."""
    return databases.connect(url, autocommit=True)


def expire_leases(database: psycopg.Connection) -> None:
    """So that the next worker need not wait until those of a dead one expire."""
    database.execute("UPDATE leases SET expires_at = now() - interval '1 s'")


def assert_exact(
    client: redis.Redis, database: psycopg.Connection, events: Sequence[Event]
) -> None:
    """Every run, node, rollup and event is there once, and nothing else."""
    wait_until(lambda: is_folded(client, database), what="everything to be folded")
    assert dead_letters(database) == []
    expected, found = project(events, SHARDS), read_projection(database)
    assert len(found.ledger) == len(expected.ledger)
    assert found == expected


def test_workers_that_are_killed(
    start_worker: StartWorker, redis_url: str, migrated_url: str
) -> None:
    """SIGKILL at random moments while events pour in: the tables are exact in the end."""
    rng = random.Random(20)
    events = interleaved(rng, EVENTS)
    with connect(redis_url) as client, look_into(migrated_url) as database:
        agree_on_shards(client, SHARDS)
        sender = Sender(redis_url, framed(events), pause_s=0.02)
        sender.start()
        kills, committed = 0, 0
        while sender.is_alive():
            worker = start_worker(redis_url, migrated_url)
            wait_until(
                lambda: consumed(database) > committed or not sender.is_alive(),  # noqa: B023
                what="the worker to commit something",
            )
            time.sleep(rng.uniform(0, 0.8))
            worker.kill()
            kills += 1
            committed = consumed(database)
            expire_leases(database)
        worker = start_worker(redis_url, migrated_url)
        assert_exact(client, database, events)
        worker.assert_lives()
        assert kills >= 3
        assert consumed(database) == sender.sent == len(framed(events))


def test_redis_that_crashes(
    start_worker: StartWorker,
    make_redis: Callable[..., RedisServer],
    migrated_url: str,
) -> None:
    """Killed and started again on its data, while the worker lives on and the producer resends."""
    rng = random.Random(21)
    events = interleaved(rng, EVENTS)
    server = make_redis()
    with (
        connect(server.url) as client,
        databases.connect(migrated_url, autocommit=True) as database,
    ):
        agree_on_shards(client, SHARDS)
        worker = start_worker(server.url, migrated_url)
        sender = Sender(server.url, framed(events), pause_s=0.005)
        sender.start()
        for _ in range(4):
            before = consumed(database)
            wait_until(lambda: consumed(database) > before, what="progress")  # noqa: B023
            time.sleep(rng.uniform(0, 0.5))
            server.kill()
            time.sleep(rng.uniform(0, 0.5))
            server.start()
        sender.join(60)
        assert not sender.is_alive()
        assert sender.failures
    with (
        connect(server.url) as client,
        databases.connect(migrated_url, autocommit=True) as database,
    ):
        assert_exact(client, database, events)
    worker.assert_lives()


def test_postgresql_that_crashes(
    start_worker: StartWorker,
    make_postgres: Callable[..., PostgresServer],
    redis_url: str,
) -> None:
    """Restarted fast, at once, and killed, while the worker lives on: it waits and repeats."""
    rng = random.Random(22)
    events = interleaved(rng, EVENTS)
    server = make_postgres()
    migrate(server.url)
    ways: list[Callable[[], None]] = [
        lambda: server.stop("fast"),
        lambda: server.stop("immediate"),
        server.kill,
        server.kill,
    ]
    with connect(redis_url) as client:
        agree_on_shards(client, SHARDS)
        worker = start_worker(redis_url, server.url)
        sender = Sender(redis_url, framed(events), pause_s=0.02)
        sender.start()
        committed = 0
        for end in ways:
            with look_into(server.url) as database:
                wait_until(lambda: consumed(database) > committed, what="progress")  # noqa: B023
                time.sleep(rng.uniform(0, 0.5))
                committed = consumed(database)
            end()
            server.start()
            with look_into(server.url) as database:
                assert consumed(database) >= committed, "a commit was lost"
                committed = consumed(database)
        sender.join(60)
        assert not sender.is_alive()
        with look_into(server.url) as database:
            assert_exact(client, database, events)
        worker.assert_lives()


def test_sigterm(start_worker: StartWorker, redis_url: str, migrated_url: str) -> None:
    """The worker finishes its batch, gives its shards up and exits with 0; the next one goes on."""
    events = interleaved(random.Random(23), EVENTS // 2)
    with connect(redis_url) as client, look_into(migrated_url) as database:
        agree_on_shards(client, SHARDS)
        worker = start_worker(redis_url, migrated_url)
        wait_until(lambda: leases(database) == SHARDS, what="the worker to take its shards")
        sender = Sender(redis_url, framed(events), pause_s=0)
        sender.start()
        wait_until(lambda: consumed(database) > 0, what="the worker to commit something")

        assert worker.terminate() == 0

        assert leases(database) == 0
        sender.join(60)
        left = sum(
            len(client.xrange(stream_key(shard), min=f"({checkpoint.position}"))
            for shard, checkpoint in load_positions(database).items()
        )
        assert left + consumed(database) == sender.sent
        start_worker(redis_url, migrated_url)
        assert_exact(client, database, events)


def consumed(database: psycopg.Connection) -> int:
    """Frames that were committed."""
    return sum(position.consumed for position in load_positions(database).values())


def leases(database: psycopg.Connection) -> int:
    row = database.execute("SELECT count(*) FROM leases").fetchone()
    assert row is not None
    return int(row[0])

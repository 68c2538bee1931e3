"""Real workers that are killed, and servers that go away under them: nothing is lost or doubled."""

import random
import time
from collections.abc import Callable

import pytest

from acceptance.worker_processes import StartWorker
from conditions import wait_until
from frame_delivery import (
    EVENTS,
    SHARDS,
    Sender,
    assert_exact,
    connect_to,
    count_consumed_frames,
    count_leases,
    expire_leases,
    interleave_runs,
    make_frames,
)
from runfold.protocol.streams import agree_on_shards, connect, stream_key
from runfold_stack.servers.postgres_server import PostgresServer
from runfold_stack.servers.redis_server import RedisServer
from runfold_storage.checkpoints.positions import load_positions
from runfold_storage.migrate import migrate
from runfold_storage.postgres import connections

pytestmark = pytest.mark.slow


def test_workers_that_are_killed(
    start_worker: StartWorker, redis_url: str, migrated_url: str
) -> None:
    """SIGKILL at random moments while events pour in: the tables are exact in the end."""
    rng = random.Random(20)
    events = interleave_runs(rng, EVENTS)
    with connect(redis_url) as client, connect_to(migrated_url) as database:
        agree_on_shards(client, SHARDS)
        sender = Sender(redis_url, make_frames(events), pause_s=0.02, endless=True)
        sender.start()
        for _ in range(5):
            committed = count_consumed_frames(database)
            worker = start_worker(redis_url, migrated_url)
            wait_until(
                lambda: count_consumed_frames(database) > committed,  # noqa: B023
                what="the worker to commit something",
            )
            time.sleep(rng.uniform(0, 0.8))
            worker.kill()
            expire_leases(database)
        sender.finish()
        worker = start_worker(redis_url, migrated_url)
        assert_exact(client, database, events)
        worker.assert_lives()
        assert count_consumed_frames(database) == sender.sent


def test_redis_that_crashes(
    start_worker: StartWorker,
    make_redis: Callable[..., RedisServer],
    migrated_url: str,
) -> None:
    """Killed and started again on its data, while the worker lives on and the producer resends."""
    rng = random.Random(21)
    events = interleave_runs(rng, EVENTS)
    server = make_redis()
    with (
        connect(server.url) as client,
        connections.connect(migrated_url, autocommit=True) as database,
    ):
        agree_on_shards(client, SHARDS)
        worker = start_worker(server.url, migrated_url)
        sender = Sender(server.url, make_frames(events), pause_s=0.01, endless=True)
        sender.start()
        for _ in range(4):
            before = count_consumed_frames(database)
            wait_until(lambda: count_consumed_frames(database) > before, what="progress")  # noqa: B023
            time.sleep(rng.uniform(0, 0.5))
            server.kill()
            time.sleep(rng.uniform(0, 0.5))
            server.start()
        sender.finish()
        assert sender.failures
    with (
        connect(server.url) as client,
        connections.connect(migrated_url, autocommit=True) as database,
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
    events = interleave_runs(rng, EVENTS)
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
        sender = Sender(redis_url, make_frames(events), pause_s=0.02, endless=True)
        sender.start()
        committed = 0
        for end in ways:
            with connect_to(server.url) as database:
                wait_until(lambda: count_consumed_frames(database) > committed, what="progress")  # noqa: B023
                time.sleep(rng.uniform(0, 0.5))
                committed = count_consumed_frames(database)
            end()
            server.start()
            with connect_to(server.url) as database:
                assert count_consumed_frames(database) >= committed, "a commit was lost"
                committed = count_consumed_frames(database)
        sender.finish()
        with connect_to(server.url) as database:
            assert_exact(client, database, events)
        worker.assert_lives()


def test_sigterm(start_worker: StartWorker, redis_url: str, migrated_url: str) -> None:
    """The worker finishes its batch, gives its shards up and exits with 0; the next one goes on."""
    events = interleave_runs(random.Random(23), EVENTS // 2)
    with connect(redis_url) as client, connect_to(migrated_url) as database:
        agree_on_shards(client, SHARDS)
        worker = start_worker(redis_url, migrated_url)
        wait_until(lambda: count_leases(database) == SHARDS, what="the worker to take its shards")
        sender = Sender(redis_url, make_frames(events), pause_s=0)
        sender.start()
        wait_until(
            lambda: count_consumed_frames(database) > 0, what="the worker to commit something"
        )

        assert worker.terminate() == 0

        assert count_leases(database) == 0
        sender.join(60)
        left = sum(
            len(client.xrange(stream_key(shard), min=f"({checkpoint.position}"))
            for shard, checkpoint in load_positions(database).items()
        )
        assert left + count_consumed_frames(database) == sender.sent
        start_worker(redis_url, migrated_url)
        assert_exact(client, database, events)

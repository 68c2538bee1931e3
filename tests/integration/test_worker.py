"""The worker's loop, on real servers: what it promises around the commit."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import redis
from redis.client import PubSub

from conditions import is_folded, run_fold_worker, wait_until
from event_histories import NOON_US, to_fields
from oracle import Event, project, to_envelope
from runfold.protocol.ids import make_run_id
from runfold.protocol.streams import agree_on_shards, changes_channel, stream_key
from runfold_storage.change_feed.notifications import NotificationMessage, decode_notification
from runfold_storage.checkpoints.positions import ensure_shards, load_positions
from runfold_storage.history import History
from runfold_storage.read_models.summaries import summary_of
from runfold_storage.rollups.store import shards_with_pending_deltas
from runfold_workers.consumer.committer import Committer
from runfold_workers.consumer.worker import Worker, WorkerSettings
from runfold_workers.fold.frame_decoder import StreamEntry
from stream_frames import add_frame
from table_reader import read_projection

SHARDS = 1


def started(run: str, event_id: int = 0, **fields: object) -> Event:
    return {"type": "started", "run": run, "id": event_id, "at_us": NOON_US, **fields}


def send(client: redis.Redis, *events: Event) -> str:
    return add_frame(client, 0, to_fields(map(to_envelope, events), packed=False))


def test_changes_are_published_after_the_commit(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """Who hears of a change can read it at once."""
    run = make_run_id(NOON_US)
    with make_pubsub(client) as pubsub:
        pubsub.subscribe(changes_channel(client))
        with run_fold_worker(redis_url, migrated_url, SHARDS):
            for told in (1, 2, 3):
                send(client, started(run, told), started(f"mine {told}"))
                announcement = next_announcement(pubsub)
                found = database.execute("SELECT max(change_seq), count(*) FROM runs").fetchone()
                assert found == (announcement.reached[0], told + 1)


def test_rows_are_announced_as_they_are_listed(
    client: redis.Redis, redis_url: str, migrated_url: str
) -> None:
    """Once somebody is known to listen, that is from the second batch on."""
    texts: dict[str, Any] = {
        "user": "ünal",
        "session": "s",
        "trigger": {"type": "cron"},
        "parent_run": "p",
    }
    run = make_run_id(NOON_US)
    with (
        make_pubsub(client) as pubsub,
        run_fold_worker(redis_url, migrated_url, SHARDS),
    ):
        pubsub.subscribe(changes_channel(client))
        send(client, started("first"))
        assert next_announcement(pubsub).runs is None
        usage = {"cost_usd": 0.5, "input_tokens": 7}
        error = {"type": "E", "message": "no", "node": "n"}
        failed = {"type": "failed", "run": run, "id": 2, "at_us": NOON_US + 1500}
        send(
            client,
            started(run, tags={"a": "1", "b": "2"}, attempt=3, **texts),
            {**failed, "error": error, "exit_code": 3, "usage": usage},
            started("another"),
        )
        announced = next_announcement(pubsub).runs
    assert announced is not None
    with History(migrated_url) as history:
        listed = {summary.id: summary for summary in history.runs().runs}
    told = {summary.id: summary for each in announced if (summary := summary_of(each.row))}
    assert told == {name: listed[name] for name in (run, "another")}
    assert told[run].duration_ms == 1.5


def make_pubsub(client: redis.Redis) -> PubSub:
    """A subscriber that returns published messages only."""
    return PubSub(client.connection_pool, ignore_subscribe_messages=True)


def next_announcement(pubsub: Any) -> NotificationMessage:
    """What a worker says next."""
    message = None
    while message is None:
        message = pubsub.get_message(timeout=30)
    announcement = decode_notification(message["data"])
    assert announcement is not None
    return announcement


def test_only_committed_frames_are_trimmed(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """While the commit has to wait, the stream keeps everything; afterwards it is empty."""
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        send(client, started("first"))
        wait_until(lambda: is_folded(client, database), what="the first frame")
        with psycopg.connect(migrated_url) as other:
            other.execute("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
            last = [send(client, started(f"run {n}")) for n in range(300)][-1]
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'"
            wait_until(lambda: database.execute(waits).fetchone() != (0,), what="a waiting batch")
            assert client.xlen(stream_key(0)) == 300
        wait_until(lambda: is_folded(client, database), what="the others")
    assert client.xlen(stream_key(0)) == 0
    checkpoint = load_positions(database)[0]
    assert (checkpoint.position, checkpoint.consumed) == (last, 301)


def test_figures_are_merged_into_the_rollups(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """Soon while it works, also what another one has left; and when it stops, nothing waits."""
    ensure_shards(database, SHARDS)
    committer = Committer(database)
    committer.own([0])
    left = to_fields([to_envelope(started("left behind"))], packed=False)
    committer.commit([StreamEntry(0, add_frame(client, 0, left), left)])
    assert shards_with_pending_deltas(database) == [0]
    counted = "SELECT coalesce(sum(n), 0)::int FROM rollups_hourly"

    def is_merged() -> bool:
        return database.execute(counted).fetchone() == (2,) and not shards_with_pending_deltas(
            database
        )

    with run_fold_worker(redis_url, migrated_url, SHARDS):
        send(client, started("first"))
        wait_until(is_merged, what="the figures to be merged")
        send(client, started("second"))
        wait_until(lambda: is_folded(client, database), what="the frame")
    assert shards_with_pending_deltas(database) == []
    assert database.execute(counted).fetchone() == (3,)


def test_a_worker_goes_on_where_the_last_one_stopped(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """Frames that came while none was at work are folded, those that were committed are not."""
    events = []
    for number in range(3):
        events.append(started("a run", number, tags={f"t{number}": number}))
        send(client, events[-1])
        with run_fold_worker(redis_url, migrated_url, SHARDS):
            wait_until(lambda: is_folded(client, database), what="the frame")

    assert read_projection(database) == project(events, SHARDS)
    assert database.execute("SELECT count(*) FROM leases").fetchone() == (0,)


def test_a_worker_trims_what_the_last_one_did_not_live_to_trim(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """Killed after the commit it leaves frames, perhaps of a shard that stays silent."""
    agree_on_shards(client, SHARDS)
    last = [send(client, started(f"run {n}")) for n in range(3)][-1]
    checkpoint = "INSERT INTO positions (shard, position, consumed) VALUES (0, %s, 3)"
    database.execute(checkpoint, (last,))
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        wait_until(lambda: client.xlen(stream_key(0)) == 0, what="an empty stream")
    assert load_positions(database)[0][:3] == (last, 0, 3)
    assert database.execute("SELECT count(*) FROM incidents").fetchone() == (0,)


def test_of_two_workers_one_works(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """The other waits until the lease is free; nothing is folded twice."""
    send(client, started("first"))
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        wait_until(lambda: is_folded(client, database), what="the first frame")
        owners = database.execute("SELECT owner FROM leases").fetchall()
        with run_fold_worker(redis_url, migrated_url, SHARDS):
            send(client, started("second"))
            wait_until(lambda: is_folded(client, database), what="the second frame")
            assert database.execute("SELECT owner FROM leases").fetchall() == owners
    assert read_projection(database) == project([started("first"), started("second")], SHARDS)


def test_a_worker_follows_the_deployments_shards(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """A number that was agreed on before it came is its number."""
    agree_on_shards(client, 5)
    worker = Worker(WorkerSettings(redis_url, migrated_url))
    worker.stop()
    worker._work()

    assert sorted(load_positions(database)) == [0, 1, 2, 3, 4]


def test_a_worker_that_stops_while_another_one_takes_over_stops_in_peace(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """Its last batch is refused, for the position has moved: the new owner folds those frames."""
    worker = Worker(WorkerSettings(redis_url, migrated_url, SHARDS))
    with ThreadPoolExecutor(1) as pool, psycopg.connect(migrated_url) as other:
        running = pool.submit(worker.run)
        send(client, started("first"))
        wait_until(lambda: is_folded(client, database), what="the first frame")
        other.execute("UPDATE positions SET generation = generation + 1")
        send(client, started("second"))
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        wait_until(lambda: database.execute(waits).fetchone() != (0,), what="a waiting batch")
        worker.stop()
        time.sleep(0.3)  # until it waits for the batch, and for nothing else
        other.commit()

        running.result(30)

    with run_fold_worker(redis_url, migrated_url, SHARDS):
        wait_until(lambda: is_folded(client, database), what="the second frame")
    assert read_projection(database) == project([started("first"), started("second")], SHARDS)

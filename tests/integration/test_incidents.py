"""Loss is never silent: what must not happen is made to happen, on real servers, and is counted.

Each test also holds that all that can be folded is, and that nothing is counted twice.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import redis

from conditions import is_folded, run_fold_worker, run_in_thread, wait_until
from conftest import MakeRedis
from event_histories import NOON_US, to_fields
from oracle import Event, project, to_envelope
from runfold import Heartbeat, Logged, Recorder
from runfold.delivery.spool_drain import drain
from runfold.delivery.spool_drain import read_spool as look_at_spool
from runfold.errors import ShardsDiffer
from runfold.protocol.ids import make_run_id, run_key
from runfold.protocol.streams import agree_on_shards, agreed_shards, connect, stream_key
from runfold.settings import read_settings
from runfold_storage.checkpoints.incidents import acknowledge, read_incidents
from runfold_storage.checkpoints.positions import ensure_shards, load_positions
from runfold_storage.checkpoints.recovery import save_stream_checkpoints
from runfold_storage.checkpoints.streams import read_lags, read_streams
from runfold_storage.ledger.partitions import (
    existing_partitions,
    partition_name,
    week_of,
    weeks_ahead,
)
from runfold_workers.consumer.worker import Worker, WorkerSettings
from runfold_workers.shards.ownership import ShardLeases
from stream_frames import add_frame, read_frames
from table_reader import read_projection

SHARDS = 1
KEY = stream_key(0)
FAR_AHEAD = "99999999999999-0"


def runs(first: int, last: int) -> list[Event]:
    return [
        {"type": "started", "run": f"run {n}", "id": 0, "at_us": NOON_US}
        for n in range(first, last + 1)
    ]


def send(client: redis.Redis, events: list[Event], frame: str = "*") -> None:
    """Each event in a frame of its own."""
    for event in events:
        add_frame(client, 0, to_fields([to_envelope(event)], packed=False), entry_id=frame)


def counted(database: psycopg.Connection) -> dict[str, int]:
    """The incidents by kind, of all shards."""
    numbers: dict[str, int] = {}
    for incident in read_incidents(database.execute):
        numbers[incident.kind] = numbers.get(incident.kind, 0) + incident.number
    return numbers


def seen(database: psycopg.Connection) -> int | None:
    """Frames that the stream had been given when a worker last looked."""
    row = database.execute(
        "SELECT entries_added FROM stream_checkpoints WHERE shard = 0"
    ).fetchone()
    return None if row is None else int(row[0])


def is_well(client: redis.Redis, database: psycopg.Connection) -> bool:
    """Whether everything is folded, and the accounts of every frame are settled."""
    if not is_folded(client, database):
        return False
    _, lags = read_lags(client, lambda: load_positions(database))
    return all(lag.frames == lag.lost == 0 and not lag.is_replaced for lag in lags.values())


def fold(client: redis.Redis, database: psycopg.Connection) -> None:
    wait_until(lambda: is_well(client, database), what="everything to be folded and accounted for")


@contextmanager
def commits_wait(url: str, client: redis.Redis, database: psycopg.Connection) -> Iterator[None]:
    """A worker has read a frame, run 0, and cannot commit it; others wait behind."""
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
        send(client, runs(0, 0))
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'"
        wait_until(lambda: database.execute(waits).fetchone() != (0,), what="a waiting batch")
        yield


def test_frames_trimmed_while_no_worker_ran(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """Exactly those that nobody had read, once; a second worker finds nothing more."""
    send(client, runs(1, 3))
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        fold(client, database)
    send(client, runs(4, 10))
    client.xtrim(KEY, maxlen=2, approximate=False)
    for last in (10, 11):
        with run_fold_worker(redis_url, migrated_url, SHARDS):
            fold(client, database)
            send(client, runs(11, last))
            fold(client, database)

    assert counted(database) == {"frames_lost": 5}
    assert read_projection(database) == project(runs(1, 3) + runs(9, 11), SHARDS)
    assert load_positions(database)[0].consumed == 11


def test_frames_deleted_under_a_worker_that_runs(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """Those that it has read already are folded, and only the others are lost."""
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        send(client, runs(7, 7))
        fold(client, database)
        with commits_wait(migrated_url, client, database):
            send(client, runs(1, 6))
            entries = read_frames(client, KEY)
            assert len(entries) == 7
            client.xdel(KEY, entries[0][0], entries[3][0], entries[5][0])
        fold(client, database)

        assert counted(database) == {"frames_lost": 2}
        kept = [event for n, event in enumerate(runs(0, 7)) if n not in (3, 5)]
        assert read_projection(database) == project(kept, SHARDS)


def test_redis_flushed_under_a_worker_that_runs(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """What waited is counted as lost, what comes is folded, and the shards are agreed on again."""
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        send(client, runs(1, 2))
        fold(client, database)
        client.flushall()
        wait_until(lambda: counted(database) == {"stream_replaced": 1}, what="the incident")
        wait_until(lambda: agreed_shards(client) == SHARDS, what="the number of shards")
        send(client, runs(3, 5))
        fold(client, database)

    assert counted(database) == {"stream_replaced": 1}
    assert read_projection(database) == project(runs(1, 5), SHARDS)


def test_frames_that_waited_when_redis_was_flushed(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """A look at the stream before it happened tells how many they were."""
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        wait_until(lambda: seen(database) == 0, what="a first look")
        with commits_wait(migrated_url, client, database):
            send(client, runs(1, 9))
            wait_until(lambda: seen(database) == 10, what="a look at the stream")
            client.flushall()
        wait_until(lambda: "stream_replaced" in counted(database), what="the incident")
        send(client, runs(11, 12))
        fold(client, database)

    assert counted(database) == {"stream_replaced": 1, "frames_lost": 9}
    assert read_projection(database) == project(runs(0, 0) + runs(11, 12), SHARDS)


def test_redis_flushed_while_a_worker_starts_over(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """Whatever folds the shard next knows from the tables how many frames are gone."""
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        send(client, runs(1, 3))
        fold(client, database)
        with commits_wait(migrated_url, client, database):
            send(client, runs(4, 8))
            wait_until(lambda: seen(database) == 9, what="a look at the stream")
            database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND wait_event_type = 'Lock'"
            )
            client.flushall()
            send(client, runs(9, 9))
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        fold(client, database)

    assert counted(database) == {"stream_replaced": 1, "frames_lost": 6}
    assert read_projection(database) == project(runs(1, 3) + runs(9, 9), SHARDS)


@pytest.mark.parametrize("is_running", [True, False])
def test_new_frames_are_folded_though_their_ids_lie_before_the_position(
    client: redis.Redis,
    database: psycopg.Connection,
    redis_url: str,
    migrated_url: str,
    is_running: bool,
) -> None:
    """The clock of the old Redis was ahead; plain reading from the position would skip them."""
    with ExitStack() as stack:
        worker = run_fold_worker(redis_url, migrated_url, SHARDS)
        stack.enter_context(worker)
        send(client, runs(1, 1), FAR_AHEAD)
        fold(client, database)
        if not is_running:
            stack.close()
        client.flushall()
        send(client, runs(2, 4))
        if not is_running:
            stack.enter_context(run_fold_worker(redis_url, migrated_url, SHARDS))
        fold(client, database)

    assert counted(database) == {"stream_replaced": 1}
    assert read_projection(database) == project(runs(1, 4), SHARDS)


def test_redis_restored_from_an_older_copy(
    make_redis: MakeRedis, database: psycopg.Connection, migrated_url: str
) -> None:
    """A real copy of its files: what it has is folded again, which doubles nothing."""
    server = make_redis()
    with connect(server.url) as client, run_fold_worker(server.url, migrated_url, SHARDS):
        send(client, runs(1, 1))
        fold(client, database)
        send(client, runs(2, 3), FAR_AHEAD.replace("-0", "-*"))
        fold(client, database)
        folder = server.data_dir / "appendonlydir"
        server.stop()
        copy = {file.name: file.read_bytes() for file in folder.iterdir()}
        server.start()
        send(client, runs(4, 5), FAR_AHEAD.replace("-0", "-*"))
        fold(client, database)
        server.kill()
        assert {file.name for file in folder.iterdir()} == set(copy)
        for name, content in copy.items():
            (folder / name).write_bytes(content)  # in place, so that their owner stays
        server.start()
        send(client, runs(6, 6), FAR_AHEAD.replace("-0", "-*"))
        fold(client, database)

    assert counted(database) == {"stream_replaced": 1}
    assert read_projection(database) == project(runs(1, 6), SHARDS)


def test_a_copy_that_is_newer_than_the_position(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """The frames between the copy and the last look are lost, and nothing is folded twice."""
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        wait_until(lambda: seen(database) == 0, what="a first look")
        with commits_wait(migrated_url, client, database):
            send(client, runs(1, 4))
            copy = client.dump(KEY)
            assert copy is not None
            send(client, runs(5, 7))
            wait_until(lambda: seen(database) == 8, what="a look at the stream")
            client.restore(KEY, 0, copy, replace=True)
        wait_until(lambda: "stream_replaced" in counted(database), what="the incident")
        fold(client, database)

    assert counted(database) == {"stream_replaced": 1, "frames_lost": 3}
    assert read_projection(database) == project(runs(0, 4), SHARDS)


def test_a_flushed_redis_learns_the_number_of_shards_from_the_database(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """Not the default, which would put runs on other shards; another number stops the worker."""
    ensure_shards(database, 3)
    worker = Worker(WorkerSettings(redis_url, migrated_url))
    worker.stop()
    worker._work()
    assert agreed_shards(client) == 3

    client.flushall()
    agree_on_shards(client, 5)
    with pytest.raises(ShardsDiffer, match="Redis has 5 shards, the database 3"):
        worker._work()
    assert len(load_positions(database)) == 3


def test_two_workers_on_one_shard(
    client: redis.Redis,
    database: psycopg.Connection,
    redis_url: str,
    migrated_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With leases switched off: every refused batch is counted, and the tables are exact."""
    everything = property(lambda _: frozenset(range(SHARDS)))
    monkeypatch.setattr(ShardLeases, "shards", everything)
    monkeypatch.setattr(ShardLeases, "surplus", property(lambda _: frozenset()))
    workers = [Worker(WorkerSettings(redis_url, migrated_url, SHARDS)) for _ in range(2)]
    sent = 0
    with ExitStack() as stack:
        for worker in workers:
            stack.enter_context(run_in_thread(worker))
        while counted(database).get("position_moved", 0) < 3:
            send(client, runs(sent, sent))
            sent += 1
        fold(client, database)

    met = sum(
        worker.metrics.registry.get_sample_value(
            "runfold_worker_incidents_total", {"kind": "position_moved"}
        )
        or 0
        for worker in workers
    )
    assert counted(database) == {"position_moved": met}
    assert read_projection(database) == project(runs(0, sent - 1), SHARDS)


def test_runs_that_are_deleted_are_no_incident(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """Whoever deletes raises the generation: that refuses a batch too, but all is as it should."""
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        send(client, runs(1, 1))
        fold(client, database)
        database.execute("UPDATE positions SET generation = generation + 1")
        send(client, runs(2, 2))
        fold(client, database)
    assert counted(database) == {}


def test_a_partition_that_cannot_be_made(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """Something has its name: the worker waits, counts its tries, and goes on when it is gone."""
    run = make_run_id(NOON_US + 300 * 86_400_000_000)
    name = partition_name(week_of(run_key(run)))
    assert name not in existing_partitions(database)
    database.execute(f"CREATE TABLE {name} (in_the_way integer)")
    event = {"type": "started", "run": run, "id": 0, "at_us": NOON_US}
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        send(client, [event])
        wait_until(lambda: counted(database).get("partition_missing", 0) >= 2, what="two tries")
        assert database.execute("SELECT count(*) FROM events").fetchone() == (0,)
        database.execute(f"DROP TABLE {name}")
        fold(client, database)
    assert set(counted(database)) == {"partition_missing"}
    assert read_projection(database) == project([event], SHARDS)


def test_partitions_are_made_ahead_while_a_worker_runs(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """Those of the next weeks, or there is an incident although no event needs them yet."""
    *_, last_but_one, last = [
        partition_name(week) for week in weeks_ahead(datetime.now(UTC).date())
    ]
    for name in (last_but_one, last):
        database.execute(f"DROP TABLE {name}")
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        wait_until(lambda: last in existing_partitions(database), what="the last week")
    assert last_but_one in existing_partitions(database)
    assert counted(database) == {}

    database.execute(f"DROP TABLE {last}")
    database.execute(f"CREATE TABLE {last} (in_the_way integer)")
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        wait_until(lambda: counted(database) == {"partition_missing": 1}, what="the incident")


def test_a_spool_at_its_cap(
    make_redis: MakeRedis,
    database: psycopg.Connection,
    migrated_url: str,
    tmp_path: Path,
) -> None:
    """What it could not take is counted to the last event, once Redis is back."""
    server = make_redis()
    server.stop()
    with Recorder(
        server.url,
        shards=SHARDS,
        spool_dir=str(tmp_path / "spool"),
        spool_bytes=1024 * 1024,
        buffer_events=10,
        heartbeat_s=0,
    ) as recorder:
        for number in range(40):
            recorder.emit(Logged(run="full", id=number, text=os.urandom(50_000).hex()))
            recorder.flush(0.05)
        dropped = recorder.flush(2).dropped
        assert dropped > 0
        server.start()
        assert recorder.flush(60).pending == 0
        with connect(server.url) as client, run_fold_worker(server.url, migrated_url, SHARDS):
            wait_until(lambda: "events_dropped" in counted(database), what="the incident")
            fold(client, database)
    assert counted(database) == {"events_dropped": dropped}
    assert database.execute("SELECT count(*) FROM events").fetchone() == (40 - dropped,)


DROPPING = """
import os, sys
from runfold import Logged; from runfold import Recorder
recorder = Recorder(heartbeat_s=0, exit_flush_s=0.1)
for number in range(40):
    recorder.emit(Logged(run="dropped", id=number, text=os.urandom(50_000).hex()))
    recorder.flush(0.05)
"""


@pytest.mark.parametrize("later", ["recorder", "drain"])
@pytest.mark.parametrize("backpressure", ["spool", "block", "drop_oldest"])
def test_drops_of_a_runner_that_ends_before_redis_is_back(
    make_redis: MakeRedis,
    database: psycopg.Connection,
    migrated_url: str,
    tmp_path: Path,
    backpressure: str,
    later: str,
) -> None:
    """Their number is on disk, and a later process makes an incident of it, once."""
    server = make_redis()
    with connect(server.url) as client:
        agree_on_shards(client, SHARDS)
    server.stop()
    settings = {
        "RUNFOLD_REDIS_URL": server.url,
        "RUNFOLD_BACKPRESSURE": backpressure,
        "RUNFOLD_SPOOL_DIR": str(tmp_path / "spool"),
        "RUNFOLD_SPOOL_BYTES": str(1024 * 1024),
        "RUNFOLD_BUFFER_EVENTS": "100" if backpressure == "block" else "10",
        "RUNFOLD_BUFFER_WAIT_S": "0.1",
    }
    subprocess.run([sys.executable, "-c", DROPPING], env=os.environ | settings, check=True)
    (waiting,) = (
        spooled
        for spooled in look_at_spool(tmp_path / "spool", server.url, 1024 * 1024)[1:3]
        if spooled.dropped
    )
    assert waiting.events + waiting.dropped == 40

    server.start()
    sdk_settings = read_settings({}, redis_url=server.url, spool_dir=str(tmp_path / "spool"))
    for _ in range(2):
        if later == "drain":
            drain(sdk_settings, 60)
        else:
            with Recorder(server.url, spool_dir=str(tmp_path / "spool"), heartbeat_s=0) as recorder:
                recorder.emit(Heartbeat(run="dropped"))
                wait_until(lambda: not os.listdir(tmp_path / "spool"), what="an empty spool")
    with connect(server.url) as client, run_fold_worker(server.url, migrated_url, SHARDS):
        wait_until(lambda: "events_dropped" in counted(database), what="the incident")
        fold(client, database)
    assert counted(database) == {"events_dropped": waiting.dropped}
    logged = "SELECT count(*) FROM events WHERE type = 'logged'"
    assert database.execute(logged).fetchone() == (waiting.events,)


def test_what_was_taken_note_of_is_not_new(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """The number goes on, and what comes on top is told."""
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        fold(client, database)
    for lost, new in ((3, 3), (2, 2)):
        send(client, runs(1, lost))
        client.xtrim(KEY, maxlen=0, approximate=False)
        with run_fold_worker(redis_url, migrated_url, SHARDS):
            fold(client, database)
        (incident,) = read_incidents(database.execute)
        assert (incident.shard, incident.new) == (0, new)
        acknowledge(database, [incident])
    (incident,) = read_incidents(database.execute)
    assert (incident.number, incident.new) == (5, 0)


@pytest.mark.parametrize("again", [0, 3, 20])
def test_redis_flushed_at_work_with_frames_waiting_whatever_comes_next(
    client: redis.Redis,
    database: psycopg.Connection,
    redis_url: str,
    migrated_url: str,
    again: int,
) -> None:
    """Also before a worker looks again, and more than there had been; what waited is counted."""
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        send(client, runs(1, 4))
        fold(client, database)
        with commits_wait(migrated_url, client, database):
            send(client, runs(5, 9))
            wait_until(lambda: seen(database) == 10, what="a look at the stream")
            client.flushall()
            send(client, runs(11, 10 + again))
        wait_until(lambda: "stream_replaced" in counted(database), what="the incident")
        fold(client, database)

    assert counted(database) == {"stream_replaced": 1, "frames_lost": 5}
    assert read_projection(database) == project(runs(0, 4) + runs(11, 10 + again), SHARDS)


@pytest.mark.parametrize("again", [0, 3, 20])
@pytest.mark.parametrize("waiting", [0, 6])
def test_redis_flushed_while_no_worker_runs_whatever_comes_next(
    client: redis.Redis,
    database: psycopg.Connection,
    redis_url: str,
    migrated_url: str,
    waiting: int,
    again: int,
) -> None:
    """What waited at the last look is counted, however much has come by the next one."""
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        send(client, runs(1, 4))
        fold(client, database)
    send(client, runs(101, 100 + waiting))
    save_stream_checkpoints(
        database, read_streams(client, [0])[0]
    )  # a worker looked, and could not fold
    client.flushall()
    send(client, runs(201, 200 + again))
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        wait_until(lambda: "stream_replaced" in counted(database), what="the incident")
        fold(client, database)

    lost = {"frames_lost": waiting} if waiting else {}
    assert counted(database) == {"stream_replaced": 1, **lost}
    assert read_projection(database) == project(runs(1, 4) + runs(201, 200 + again), SHARDS)


@pytest.mark.parametrize("again", [0, 5])
def test_redis_flushed_before_a_shard_had_any_frame_folded(
    client: redis.Redis,
    database: psycopg.Connection,
    redis_url: str,
    migrated_url: str,
    again: int,
) -> None:
    """There is no position by which to tell; workers leave a mark in Redis."""
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        wait_until(lambda: seen(database) == 0, what="a first look")
    send(client, runs(1, 3))
    client.flushall()
    send(client, runs(11, 10 + again))
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        wait_until(lambda: counted(database) == {"stream_replaced": 1}, what="the incident")
        fold(client, database)
    assert counted(database) == {"stream_replaced": 1}
    assert read_projection(database) == project(runs(11, 10 + again), SHARDS)

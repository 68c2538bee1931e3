"""Runs without a sign of life become lost, and anything that they say takes it back."""

import json

import psycopg
import redis

from conditions import is_folded, run_fold_worker, run_in_thread, wait_until
from event_histories import NOON_US, to_fields
from frame_delivery import connect_to
from oracle import Event, project, to_envelope
from runfold import Recorder
from runfold.protocol.streams import agree_on_shards, connect, stream_key
from runfold_storage.checkpoints.liveness import find_silent, save_liveness_mark
from runfold_storage.checkpoints.liveness_limits import Limit, Limits
from runfold_storage.history import History
from runfold_workers.consumer.worker import Worker, WorkerSettings
from runfold_workers.metrics import Metrics
from runfold_workers.shards.lost_runs import LostRunDetector
from service_threads import run_api
from sse_client import open_event_stream
from stream_frames import add_frame
from table_reader import read_projection

SHARDS = 1
A_SECOND = Limits(running=Limit(1.0), queued=Limit(0))
MINUTE_US = 60_000_000


def said(event_type: str, run: str = "a run", minute: int = 0, **fields: object) -> Event:
    event_id = 100 * minute + len(event_type)
    at_us = NOON_US + minute * MINUTE_US
    return {"type": event_type, "run": run, "id": event_id, "at_us": at_us, **fields}


def send(client: redis.Redis, *events: Event) -> None:
    add_frame(client, 0, to_fields(map(to_envelope, events), packed=False))


def fold(redis_url: str, migrated_url: str, *events: Event) -> None:
    """By a worker that takes nothing for lost, which ends."""
    with (
        connect(redis_url) as client,
        connect_to(migrated_url) as connection,
        run_fold_worker(redis_url, migrated_url, SHARDS),
    ):
        send(client, *events)
        wait_until(lambda: is_folded(client, connection), what="the events")


def statuses(connection: psycopg.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT external_id, status FROM runs").fetchall())


def listen(connection: psycopg.Connection, seconds: int, limits: Limits) -> None:
    """Save marks as if workers had listened for so long, one mark a minute."""
    for _ in range(seconds // 60):
        connection.execute("UPDATE liveness_marks SET marked_at = marked_at - interval '60 s'")
        save_liveness_mark(connection, [0], limits)


def test_a_silent_run_is_lost_until_it_speaks_again(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """Its ledger says so, and that it was heard again; its end is its end."""
    with (
        run_in_thread(Worker(WorkerSettings(redis_url, migrated_url, SHARDS, A_SECOND))),
        History(migrated_url) as history,
    ):
        send(client, said("started"), said("logged", minute=3, text="last words"))
        wait_until(lambda: statuses(database) == {"a run": "lost"}, what="the loss")
        assert history.stats().total == history.stats().lost == 1
        send(client, said("heartbeat", minute=70))
        wait_until(lambda: statuses(database) == {"a run": "running"}, what="the heartbeat")
        wait_until(lambda: statuses(database) == {"a run": "lost"}, what="the second loss")
        send(client, said("completed", minute=200))
        wait_until(lambda: statuses(database) == {"a run": "completed"}, what="the end")

        page = history.events("a run", types="lost")
        assert page is not None
        assert [json.loads(bytes(event))["silent_s"] for event in page.events] == [1.0, 1.0]
    types = "SELECT type::text FROM events ORDER BY at, type"
    assert [event_type for (event_type,) in database.execute(types)] == [
        "started",
        "logged",
        "lost",
        "heartbeat",
        "lost",
        "completed",
    ]
    lost = [said("lost", minute=3), said("lost", minute=70)]
    told = [said("started"), said("logged", minute=3, text="last words")]
    told += [said("heartbeat", minute=70), said("completed", minute=200)]
    assert read_projection(database) == project([*told, *lost], SHARDS)


def test_watchers_see_that_a_run_is_lost_and_that_it_is_not(
    client: redis.Redis, redis_url: str, migrated_url: str
) -> None:
    """Those of all runs, and those of lost ones."""
    agree_on_shards(client, SHARDS)
    with (
        run_api(redis_url, migrated_url) as api,
        run_in_thread(Worker(WorkerSettings(redis_url, migrated_url, SHARDS, A_SECOND))),
    ):
        send(client, said("started"))
        wait_until(lambda: api.get("/api/v1/runs").json()["runs"], what="the run")
        with (
            open_event_stream(api, "/api/v1/live?limit=1") as of_all,
            open_event_stream(api, "/api/v1/live?status=lost") as of_lost,
        ):
            wait_until(lambda: of_lost.named("changed"), what="the loss")
            send(client, said("heartbeat", minute=5))
            wait_until(lambda: of_lost.named("removed"), what="the heartbeat")
            wait_until(lambda: of_all.named("changed")[1:], what="the heartbeat")
            told = [run["status"] for run in of_all.named("changed")]
    assert "running" in told[told.index("lost") :]
    assert of_lost.named("removed")[0] == {"id": "a run"}


def test_the_sdk_s_heartbeats_keep_a_run_alive(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """A run that says nothing for long, in a process that lives, beside one that died."""
    agree_on_shards(client, SHARDS)
    limits = Limits(running=Limit(3.0))
    with (
        run_in_thread(Worker(WorkerSettings(redis_url, migrated_url, SHARDS, limits))),
        Recorder(redis_url, heartbeat_s=0.2) as recorder,
        recorder.run("long", id="alive"),
    ):
        send(client, said("started", "dead"))
        wait_until(lambda: statuses(database).get("dead") == "lost", what="the loss")
        assert statuses(database) == {"dead": "lost", "alive": "running"}


def test_only_open_runs_beyond_the_limit_of_their_project_are_silent(
    database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """Queued ones have a limit of their own; 0 is for ever."""
    fold(
        redis_url,
        migrated_url,
        said("started", "short", project="hasty"),
        said("started", "usual", project="acme"),
        said("started", "endless", project="patient"),
        said("queued", "waiting"),
        said("started", "over"),
        said("completed", "over", minute=1),
    )
    limits = Limits(Limit(3600, {"hasty": 600, "patient": 0}), queued=Limit(7200))
    found = []
    save_liveness_mark(database, [0], limits)
    for _ in range(13):
        listen(database, 600, limits)
        found.append({run.run_id: run.limit_s for run in find_silent(database, limits)})

    assert found[0] == {"short": 600}
    assert found[4] == {"short": 600}
    assert found[5] == {"short": 600, "usual": 3600}
    assert found[10] == found[5]
    assert found[12] == {"short": 600, "usual": 3600, "waiting": 7200}


def test_a_run_whose_events_retention_took_is_left_alone(
    database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """The fold takes nothing of it any more, so it would be said to be lost for ever."""
    fold(redis_url, migrated_url, said("started", "kept"), said("started", "aged"))
    save_liveness_mark(database, [0], A_SECOND)
    database.execute("UPDATE liveness_marks SET marked_at = marked_at - interval '2 s'")
    database.execute("UPDATE runs SET payloads_expired_at = now() WHERE external_id = 'aged'")
    save_liveness_mark(database, [0], A_SECOND)

    assert [run.run_id for run in find_silent(database, A_SECOND)] == ["kept"]


def test_time_without_a_listening_worker_does_not_count(
    database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """After an outage of hours, runners have their whole limit to come back."""
    fold(redis_url, migrated_url, said("started"))
    limits = Limits()
    save_liveness_mark(database, [0], limits)
    listen(database, 3000, limits)
    database.execute("UPDATE liveness_marks SET marked_at = marked_at - interval '5 hours'")
    save_liveness_mark(database, [0], limits)

    listen(database, 540, limits)
    assert find_silent(database, limits) == []
    listen(database, 120, limits)
    assert [run.run_id for run in find_silent(database, limits)] == ["a run"]


def test_liveness_marks_that_are_too_old_are_deleted(
    database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """As many are kept as the longest limit needs."""
    fold(redis_url, migrated_url, said("started"))
    limits = Limits(queued=Limit(0))
    save_liveness_mark(database, [0], limits)
    listen(database, 3 * 3600, limits)

    (kept,) = database.execute("SELECT count(*) FROM liveness_marks").fetchone() or (0,)
    assert 60 <= kept <= 70
    assert [run.run_id for run in find_silent(database, limits)] == ["a run"]


def test_what_waits_in_the_stream_may_be_a_sign_of_life(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """No mark is saved for a shard with a backlog, however long it lasts."""
    fold(redis_url, migrated_url, said("started"))
    send(client, said("heartbeat", minute=5))
    sweep = LostRunDetector(A_SECOND, Metrics())
    for _ in range(5):
        sweep.check(client, database)
        sweep._due = 0

    assert database.execute("SELECT count(*) FROM liveness_marks").fetchone() == (0,)


def test_two_that_sweep_at_once_say_the_same(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """The ledger has it once."""
    fold(redis_url, migrated_url, said("started"))
    agree_on_shards(client, SHARDS)
    save_liveness_mark(database, [0], A_SECOND)
    database.execute("UPDATE liveness_marks SET marked_at = marked_at - interval '2 s'")
    sweeps = [LostRunDetector(A_SECOND, Metrics()) for _ in range(2)]
    for _ in range(2):
        for sweep in sweeps:
            sweep.check(client, database)
    assert client.xlen(stream_key(0)) == 2

    with run_fold_worker(redis_url, migrated_url, SHARDS):
        wait_until(lambda: is_folded(client, database), what="what the sweeps said")

    assert statuses(database) == {"a run": "lost"}
    lost = "SELECT count(*) FROM events WHERE type = 'lost'"
    assert database.execute(lost).fetchone() == (1,)


def test_a_watchdog_of_ones_own_may_say_it(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """Whoever knows that a machine is gone need not wait for the limit."""
    fold(redis_url, migrated_url, said("started"), said("lost", minute=1))

    assert statuses(database) == {"a run": "lost"}

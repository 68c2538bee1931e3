"""Senders whose clocks are wrong: refused at the edge, a dead letter in a stream."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis
import zstandard

from conditions import is_folded, run_fold_worker, run_in_thread, wait_until
from runfold.protocol.codec import Envelope, to_rfc3339, to_us
from runfold.protocol.frames import encode_json_frame, encode_packed_frame
from runfold.protocol.streams import shard_of, stream_key
from runfold.protocol.time_limits import EARLIEST_US
from runfold_storage.checkpoints.liveness_limits import Limit, Limits
from runfold_storage.errors import BadParameter
from runfold_storage.history import History
from runfold_storage.rollups.store import rebuild_days
from runfold_workers.consumer.worker import Worker, WorkerSettings
from service_threads import run_api
from table_reader import merge_all_deltas, read_dead_letters

SHARDS = 8
RUNFOLD = Path(sys.executable).with_name("runfold")


def ahead(**span: float) -> str:
    return (datetime.now(UTC) + timedelta(**span)).isoformat()


MakeTime = Callable[[], str]
REFUSED: dict[str, MakeTime] = {
    "year 1": lambda: "0001-01-01T00:00:00Z",
    "1999": lambda: "1999-12-31T23:59:59.999999Z",
    "25 h ahead": lambda: ahead(hours=25),
    "year 9999": lambda: "9999-12-31T23:59:59.999999Z",
}
ALLOWED: dict[str, MakeTime] = {
    "2000": lambda: "2000-01-01T00:00:00Z",
    "a day ahead": lambda: ahead(hours=23, minutes=59),
}
refused = pytest.mark.parametrize("moment", REFUSED.values(), ids=REFUSED)
allowed = pytest.mark.parametrize("moment", ALLOWED.values(), ids=ALLOWED)


@pytest.fixture
def api(redis_url: str, migrated_url: str) -> Iterator[httpx.Client]:
    with run_api(redis_url, migrated_url) as client:
        yield client


def started(run: str, at: str) -> dict[str, Any]:
    return {"type": "started", "run": run, "at": at, "workflow": "w"}


def entries(client: redis.Redis) -> int:
    return sum(client.xlen(stream_key(shard)) for shard in range(SHARDS))


@refused
@pytest.mark.parametrize("media_type", ["application/json", "application/x-ndjson"])
def test_posted_events_are_refused(
    api: httpx.Client, client: redis.Redis, moment: Any, media_type: str
) -> None:
    """The problem names the field, where the event stood and what is allowed."""
    events = [started("a", ahead()), started("b", moment())]
    body = "\n".join(map(json.dumps, events)) if "nd" in media_type else json.dumps(events)
    answer = api.post("/api/v1/events", content=body, headers={"content-type": media_type})
    assert answer.status_code == 400
    (problem,) = answer.json()["events"]
    assert (problem["index"], problem["field"]) == (1, "at")
    assert "allowed is 2000-01-01T00:00:00.000000Z to " in problem["reason"]
    assert "RUNFOLD_MAX_FUTURE_S" in problem["reason"]
    assert entries(client) == 0


@allowed
def test_posted_events_within_the_bounds_are_taken(api: httpx.Client, moment: Any) -> None:
    assert api.post("/api/v1/events", json=started("a", moment())).status_code == 202


def test_how_far_ahead_is_a_setting(redis_url: str, migrated_url: str) -> None:
    with run_api(redis_url, migrated_url, max_future_s=60) as api:
        late = api.post("/api/v1/events", json=started("a", ahead(minutes=2)))
        assert late.status_code == 400
        assert api.post("/api/v1/events", json=started("a", ahead())).status_code == 202


@refused
def test_posted_executions_are_refused(api: httpx.Client, client: redis.Redis, moment: Any) -> None:
    """The problem names the field."""
    fields = ["started_at", "finished_at", "queued_at"]
    for status, field in [*product([None], fields), *product(["running"], fields[::2])]:
        execution = {"workflow": "w", "status": status, "started_at": ahead(), field: moment()}
        answer = api.post("/api/v1/executions", json=execution)
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith(f"{field}: ")
        assert "allowed is 2000-01-01" in answer.json()["detail"]
    for field in fields[:2]:
        nodes = [{"node": "a"}, {"node": "b", field: moment()}]
        answer = api.post("/api/v1/executions", json={"workflow": "w", "nodes": nodes})
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith(f"nodes[1].{field}: ")
    assert entries(client) == 0


@pytest.mark.parametrize(
    ("execution", "place"),
    [
        ({"duration_ms": 1e14}, "duration_ms: the computed start"),
        (
            {"started_at": "2026-01-01T00:00:00Z", "duration_ms": 1e14},
            "duration_ms: the computed end",
        ),
        (
            {"finished_at": "2026-01-01T00:00:00Z", "duration_ms": 1e12},
            "duration_ms: the computed start",
        ),
        ({"nodes": [{"node": "a", "duration_ms": 1e14}]}, "nodes[0].duration_ms: the computed end"),
        (
            {"nodes": [{"node": "a", "finished_at": "2026-01-01T00:00:00Z", "duration_ms": 1e14}]},
            "nodes[0].duration_ms: the computed start",
        ),
    ],
)
def test_a_duration_that_leads_out_of_the_bounds(
    api: httpx.Client, execution: dict[str, Any], place: str
) -> None:
    answer = api.post("/api/v1/executions", json={"workflow": "w", **execution})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(place)


def test_emit_leaves_the_lines_out_and_names_them(redis_url: str, client: redis.Redis) -> None:
    moments = [moment() for moment in (*REFUSED.values(), *ALLOWED.values())]
    lines = "\n".join(json.dumps(started(f"r{n}", at)) for n, at in enumerate(moments))
    done = subprocess.run(
        [RUNFOLD, "emit", "--json"],
        input=lines,
        capture_output=True,
        text=True,
        env=os.environ | {"RUNFOLD_REDIS_URL": redis_url},
        check=False,
    )
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert told["accepted"] == len(ALLOWED)
    assert [line["line"] for line in told["lines"]] == [1, 2, 3, 4]
    assert all(line["reason"].startswith("at: ") for line in told["lines"])


@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("many", [1, 100])
def test_in_a_stream_it_is_a_dead_letter_and_its_neighbours_go_through(
    client: redis.Redis,
    database: psycopg.Connection,
    redis_url: str,
    migrated_url: str,
    is_packed: bool,
    many: int,
) -> None:
    """In frames of JSON and in packed ones, those of a hundred events and those of three."""
    moments = [to_us(datetime.fromisoformat(m())) for m in (*REFUSED.values(), *ALLOWED.values())]
    if is_packed:
        moments += [2**63 - 1, -(2**63)]  # what no calendar has
    now_us = to_us(datetime.now(UTC))
    for number, at_us in enumerate(moments):
        run = f"r{number}"
        events = [Envelope("started", run, n, now_us, b'{"workflow":"w"}') for n in range(many)]
        events.append(Envelope("logged", run, many, at_us, b'{"text":"x"}'))
        events.append(Envelope("completed", run, many + 1, now_us, b"{}"))
        encode = encode_packed_frame if is_packed else _as_json
        frame = encode(events, zstandard.ZstdCompressor())
        client.xadd(stream_key(shard_of(run, SHARDS)), frame)  # type: ignore[arg-type]
    with run_fold_worker(redis_url, migrated_url, SHARDS) as thread:
        wait_until(lambda: is_folded(client, database) or not thread.is_alive(), what="the fold")
        assert thread.is_alive()
    runs = database.execute("SELECT status, count(*)::int FROM runs GROUP BY 1").fetchall()
    assert runs == [("completed", len(moments))]
    letters = read_dead_letters(database)
    assert len(letters) == len(moments) - len(ALLOWED)
    for _, _, ordinal, reason, raw in letters:
        assert ordinal == many
        assert reason.startswith("at: ")
        assert "is out of bounds" in reason
        assert b'"text":"x"' in raw


def _as_json(events: list[Envelope], _: object) -> dict[bytes, bytes]:
    return encode_json_frame(events)


def test_the_dead_letter_can_be_sent_when_its_time_has_come(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """What was kept is an event as `runfold emit` takes it."""
    at_us = to_us(datetime.now(UTC) + timedelta(hours=2))
    frame = encode_json_frame([Envelope("started", "early", 7, at_us, b'{"workflow":"w"}')])
    client.xadd(stream_key(shard_of("early", SHARDS)), frame)  # type: ignore[arg-type]
    strict = WorkerSettings(redis_url, migrated_url, SHARDS, max_future_s=60)
    with run_in_thread(Worker(strict)):
        wait_until(lambda: is_folded(client, database), what="the fold")
    ((*_, raw),) = read_dead_letters(database)
    done = subprocess.run(
        [RUNFOLD, "emit"],
        input=raw,
        capture_output=True,
        env=os.environ | {"RUNFOLD_REDIS_URL": redis_url},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        wait_until(lambda: is_folded(client, database), what="the fold")
    found = database.execute("SELECT workflow, started_at FROM runs").fetchall()
    assert [(workflow, to_us(at)) for workflow, at in found] == [("w", at_us)]


def test_a_run_of_the_year_1_from_before_is_lost_once(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """What says so has a time that is allowed, and is no dead letter that comes every second."""
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        frame = encode_json_frame([Envelope("started", "old", 0, EARLIEST_US, b'{"workflow":"w"}')])
        client.xadd(stream_key(shard_of("old", SHARDS)), frame)  # type: ignore[arg-type]
        wait_until(lambda: is_folded(client, database), what="the fold")
    for column in ("created_at", "started_at", "last_event_at"):
        database.execute(f"UPDATE runs SET {column} = '0001-01-01T00:00:00Z'")
    database.execute("UPDATE events SET at = '0001-01-01T00:00:00Z'")
    merge_all_deltas(database)
    database.execute("UPDATE rollups_hourly SET hour = '0001-01-01T00:00:00Z'")
    database.execute("UPDATE rollups_daily SET day = '0001-01-01T00:00:00Z'")
    limits = Limits(running=Limit(1, {}), queued=Limit(1, {}))

    def status() -> str:
        return str(database.execute("SELECT status FROM runs").fetchone()[0])  # type: ignore[index]

    with run_in_thread(Worker(WorkerSettings(redis_url, migrated_url, SHARDS, limits))):
        wait_until(lambda: status() == "lost", what="the run to be lost")
    assert read_dead_letters(database) == []


def count_runs(database: psycopg.Connection, *hours: datetime | str) -> None:
    """Put one run of each hour into the statistics."""
    found = [
        database.execute(
            """
            INSERT INTO rollups_hourly (workflow, project, node, hour, status, shard, n,
                duration_count, duration_min_us, duration_max_us, bins, bin_counts)
            VALUES ('w', 'p', '', %s, 'completed', 0, 1, 1, 1000, 1000, '{350}', '{1}')
            RETURNING (extract(epoch FROM hour) * 1000000)::bigint
            """,
            (hour,),
        ).fetchone()
        for hour in hours
    ]
    rebuild_days(database, 0, [row[0] for row in found if row])


def this_hour() -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def test_statistics_beside_rows_of_the_year_1_and_9999(
    migrated_url: str, database: psycopg.Connection
) -> None:
    """As an older Runfold has left them: figures are of what is in their time, in any zone."""
    count_runs(database, "0001-01-01T00:00:00Z", this_hour(), "9999-12-31T23:00:00Z")
    end = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    with History(migrated_url) as history:
        for tz, bucket, group_by in product(
            ["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"],
            [None, "hour", "day", "week", "month"],
            [None, "workflow", "status"],
        ):
            stats = history.stats(bucket=bucket, tz=tz, group_by=group_by)
            assert stats.total == 1, (tz, bucket, group_by)
            if bucket is not None:
                assert isinstance(stats.buckets, list)
                assert len(stats.buckets) == 1
            assert history.stats(until=end, bucket=bucket, tz=tz, group_by=group_by).total == 1


def test_statistics_without_until_end_now(migrated_url: str, database: psycopg.Connection) -> None:
    """A run of a clock that is ahead is no bucket beyond the present one."""
    hour = this_hour()
    count_runs(database, hour, hour + timedelta(days=2))
    with History(migrated_url) as history:
        for bucket in (None, "hour", "day"):
            stats = history.stats(bucket=bucket, tz="Europe/Berlin")
            assert stats.total == 1
            assert hour < stats.until <= hour + timedelta(days=2)
        assert history.stats(until=hour + timedelta(days=3)).total == 2


@pytest.mark.parametrize(
    ("bucket", "days", "fitting"),
    [("hour", 30, "day"), ("day", 500, "week"), ("week", 3000, "month")],
)
def test_more_than_400_buckets_are_refused_with_one_that_fits(
    api: httpx.Client, bucket: str, days: int, fitting: str
) -> None:
    since = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    answer = api.get("/api/v1/stats", params={"bucket": bucket, "since": since})
    assert (answer.status_code, answer.json()["parameter"]) == (400, "bucket")
    assert f"`{fitting}` fits" in answer.json()["detail"]
    fits = api.get("/api/v1/stats", params={"bucket": fitting, "since": since})
    assert fits.status_code == 200


def test_more_than_400_buckets_without_since(
    migrated_url: str, database: psycopg.Connection
) -> None:
    """What was found tells."""
    hour = this_hour()
    count_runs(database, *(hour - timedelta(hours=h) for h in range(401)))
    with History(migrated_url) as history:
        with pytest.raises(BadParameter, match="401 buckets, at most 400 are allowed: `day` fits"):
            history.stats(bucket="hour")
        assert history.stats(bucket="day").total == 401


def test_the_message_tells_the_bounds(api: httpx.Client) -> None:
    answer = api.post("/api/v1/events", json=started("a", "0001-01-01T00:00:00Z"))
    reason = answer.json()["events"][0]["reason"]
    assert f"{to_rfc3339(EARLIEST_US)} to " in reason

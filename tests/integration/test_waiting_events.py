"""Events that wait to be folded for too long show in readiness, metrics and the doctor."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from conditions import is_folded, run_fold_worker, wait_until
from event_histories import NOON_US, to_fields
from oracle import to_envelope
from runfold.protocol.streams import agree_on_shards, stream_key
from runfold_stack.doctor import Finding
from runfold_stack.doctor.examination import examine
from runfold_stack.settings import Settings
from runfold_storage.checkpoints.positions import ensure_shards, load_positions
from runfold_storage.checkpoints.streams import read_lags
from service_threads import run_api
from stream_frames import add_frame, read_frames

SHARDS = 1
KEY = stream_key(0)
A_MINUTE_MS = 60_000


def send(client: redis.Redis, run: str, ago_ms: int = 0) -> None:
    """A frame of so long ago."""
    event = {"type": "started", "run": run, "id": 0, "at_us": NOON_US}
    seconds, microseconds = client.time()
    sent_ms = seconds * 1000 + microseconds // 1000 - ago_ms
    add_frame(client, 0, to_fields([to_envelope(event)], packed=False), entry_id=f"{sent_ms}-*")


@contextmanager
def no_worker_ever(client: redis.Redis, redis_url: str, url: str) -> Iterator[None]:
    agree_on_shards(client, SHARDS)
    send(client, "waits", A_MINUTE_MS)
    yield


@contextmanager
def a_worker_that_has_gone(client: redis.Redis, redis_url: str, url: str) -> Iterator[None]:
    with run_fold_worker(redis_url, url, SHARDS), psycopg.connect(url) as database:
        send(client, "was folded", 2 * A_MINUTE_MS)
        wait_until(lambda: is_folded(client, database), what="a fold")
    send(client, "waits", A_MINUTE_MS)
    yield


@contextmanager
def a_worker_that_does_not_get_on(client: redis.Redis, redis_url: str, url: str) -> Iterator[None]:
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
        send(client, "waits", A_MINUTE_MS)
        with run_fold_worker(redis_url, url, SHARDS):
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            wait_until(lambda: other.execute(waits).fetchone() != (0,), what="a waiting batch")
            yield
            other.rollback()


def lag_found(redis_url: str, url: str, home: Path, **settings: Any) -> Finding:
    """What the doctor says of the lag."""
    read = Settings(home=home, redis_url=redis_url, database_url=url, **settings)
    [found] = [each for each in examine(read, datetime.now(UTC).date()) if each.check == "lag"]
    return found


@pytest.mark.parametrize(
    "cause", [no_worker_ever, a_worker_that_has_gone, a_worker_that_does_not_get_on]
)
def test_events_that_wait_for_a_minute_are_reported_whatever_the_cause(
    client: redis.Redis, redis_url: str, migrated_url: str, tmp_path: Path, cause: object
) -> None:
    """Within the limit that is set all is well."""
    with (
        cause(client, redis_url, migrated_url),  # type: ignore[operator]
        run_api(redis_url, migrated_url) as api,
        run_api(redis_url, migrated_url, max_lag_s=3600) as patient,
    ):
        answer = api.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "behind")
        assert answer.json()["waiting_s"] > 59
        assert "runfold doctor" in answer.json()["detail"]
        assert patient.get("/readyz").json() == {"status": "ready"}
        [age_s] = [
            sample.value
            for family in text_string_to_metric_families(api.get("/metrics").text)
            for sample in family.samples
            if sample.name == "runfold_lag_seconds"
        ]
        assert age_s > 59
        found = lag_found(redis_url, migrated_url, tmp_path)
        assert found.level == "fail"
        assert found.found.startswith("1 frames wait to be folded, the oldest for 6")
        assert lag_found(redis_url, migrated_url, tmp_path, max_lag_s=3600).level == "ok"


def test_what_is_committed_and_not_trimmed_does_not_wait(
    client: redis.Redis, database: psycopg.Connection
) -> None:
    """The oldest is the first frame behind the checkpoint, whatever stands before it."""
    ensure_shards(database, SHARDS)
    send(client, "was folded", A_MINUTE_MS)
    [(committed, _)] = read_frames(client, KEY)
    database.execute("UPDATE positions SET position = %s, consumed = 1", (committed.decode(),))
    _, lags = read_lags(client, lambda: load_positions(database))
    assert (lags[0].frames, lags[0].age_s) == (0, 0)
    send(client, "waits")
    _, lags = read_lags(client, lambda: load_positions(database))
    assert lags[0].frames == 1
    assert lags[0].age_s < A_MINUTE_MS / 1000

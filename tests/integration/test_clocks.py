"""Runners whose clocks jump: histories that look odd, and are exact all the same."""

import time
from typing import Final

import psycopg
import pytest
import redis

from conditions import is_folded, run_in_thread, wait_until
from runfold import Recorder
from runfold_workers.consumer.worker import Worker, WorkerSettings

SHARDS: Final = 8
HOUR_NS: Final = 3600 * 10**9
JUMPS: Final = (0, -HOUR_NS, 48 * HOUR_NS, -48 * HOUR_NS, 1, HOUR_NS, -24 * 400 * HOUR_NS)


class Clock:
    """`time.time_ns`, put forward and back."""

    def __init__(self) -> None:
        self.offset_ns = 0
        self._real = time.time_ns

    def __call__(self) -> int:
        return self._real() + self.offset_ns


def test_clocks_that_jump_between_the_events_of_a_run(
    redis_url: str,
    client: redis.Redis,
    migrated_url: str,
    database: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each run and node is there once, complete, with the duration of the monotonic clock."""
    clock = Clock()
    monkeypatch.setattr(time, "time_ns", clock)
    monkeypatch.setattr("runfold.recording.recorder._now_ns", clock)
    # The worker's clock is the one that jumps, so what was sent a moment ago may be days ahead.
    settings = WorkerSettings(redis_url, migrated_url, SHARDS, max_future_s=10 * 365 * 86_400)
    with run_in_thread(Worker(settings)), Recorder(redis_url, heartbeat_s=0) as recorder:
        for jump_ns in JUMPS * 3:
            with recorder.run("w") as run:
                with run.node("before"):
                    clock.offset_ns += jump_ns
                with run.node("after"):
                    pass
            recorder.flush(30)  # so that a batch sees the clock go back
            wait_until(lambda: is_folded(client, database), what="the run to be folded")

        expected = len(JUMPS) * 3
        found = database.execute(
            """
            SELECT count(*), count(*) FILTER (WHERE status = 'completed'),
                   sum(nodes_completed)::int, min(duration_us) >= 0, max(duration_us) < 60000000
            FROM runs
            """
        ).fetchone()
        assert found == (expected, expected, 2 * expected, True, True)
        events = database.execute("SELECT count(*), count(DISTINCT (run, id)) FROM events")
        assert events.fetchone() == (6 * expected, 6 * expected)
        counted = (
            "SELECT sum(total)::int FROM hourly_stats WHERE node IS NULL AND status = 'completed'"
        )
        assert database.execute(counted).fetchone() == (expected,)
        watermark = "SELECT bool_and(folded_at <= now()) FROM positions WHERE folded_at IS NOT NULL"
        assert database.execute(watermark).fetchone() == (True,)

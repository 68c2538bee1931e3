"""A worker dies at each of its steps, and its successor makes good of what it finds."""

import random
import re
import signal
from itertools import chain
from pathlib import Path

import psycopg
import pytest

from acceptance.worker_processes import StartWorker
from conditions import run_fold_worker, wait_until
from event_histories import NOON_US
from frame_delivery import (
    SHARDS,
    Frame,
    assert_exact,
    connect_to,
    count_consumed_frames,
    count_leases,
    encode_fields,
    expire_leases,
    interleave_runs,
    make_frames,
)
from oracle import Event
from runfold.protocol.streams import agree_on_shards, connect, shard_of, stream_key
from runfold_storage.checkpoints.incidents import read_incidents
from table_reader import read_dead_letters

EVENTS = 4000
FOLDERS = [Path(__file__).parents[2] / root for root in ("storage", "workers")]
JOBS = {"integrity", "jobs", "retention"}

WHEN_REFUSED = ("after_refusal", "between_halves")
WHEN_RENEWED = ("before_lease_renew", "after_lease_renew")
WHEN_STOPPED = ("before_lease_release", "after_lease_release")
WHEN_COMMITTED = ("after_commit", "after_publish", "after_trim", "between_halves", *WHEN_STOPPED)
POISON: Event = {"type": "started", "run": "r", "id": 0, "at_us": NOON_US, "user": "poison"}


def find_crash_points() -> list[str]:
    """Return the points of the code, except for those of jobs, which their own tests go through."""
    named: set[str] = set()
    for module in chain.from_iterable(folder.rglob("*.py") for folder in FOLDERS):
        if not JOBS.intersection(module.with_suffix("").parts):
            for call in re.findall(r"crash_point\(([^)]*)", module.read_text()):
                named.update(re.findall(r'"(\w+)"', call))
    return sorted(named)


@pytest.mark.parametrize("point", find_crash_points())
def test_a_worker_that_dies_there(
    point: str, start_worker: StartWorker, redis_url: str, migrated_url: str
) -> None:
    """Killed at this point, with more to come; the tables are exact in the end."""
    events = interleave_runs(random.Random(point), EVENTS)
    frames = make_frames(events)
    middle = len(frames) // 2
    with connect(redis_url) as client, connect_to(migrated_url) as database:
        agree_on_shards(client, SHARDS)
        poison: list[Frame] = []
        lost = point == "after_mend"
        if lost:  # unread; its events come again below
            client.xdel(
                stream_key(frames[0][0]), client.xadd(stream_key(frames[0][0]), frames[0][1])
            )
        if point in WHEN_REFUSED:
            database.execute("ALTER TABLE events ADD CHECK (body NOT LIKE '%poison%')")
            poison = [(shard_of("r", SHARDS), encode_fields([POISON]))]
        for shard, fields in frames[:middle] + poison:
            client.xadd(stream_key(shard), fields)
        worker = start_worker(redis_url, migrated_url, crash_at=point)
        if point in WHEN_STOPPED:
            wait_until(
                lambda: count_consumed_frames(database) >= SHARDS,
                what="the worker to commit something",
            )
            worker.process.send_signal(signal.SIGTERM)

        worker.crashed()

        assert_left_as_is(point, database, skipped=int(lost))
        # The producer has had no answer for some of these, and sends them again.
        for shard, fields in frames[middle - 5 :]:
            client.xadd(stream_key(shard), fields)
        expire_leases(database)
        with run_fold_worker(redis_url, migrated_url, SHARDS):
            assert_exact(client, database, events, dead_letter_count=len(poison))
        assert count_consumed_frames(database) == len(frames) + 5 + len(poison) + lost
        assert [(each.kind, each.number) for each in read_incidents(database.execute)] == (
            [("frames_lost", 1)] if lost else []
        )


def assert_left_as_is(point: str, database: psycopg.Connection, *, skipped: int) -> None:
    """It died where it should: what the database has by then tells so."""
    before_all = point not in WHEN_COMMITTED
    if point not in WHEN_RENEWED:  # by another thread than the one that folds
        assert (count_consumed_frames(database) == skipped) is before_all
    freed = point in ("before_lease_take", "after_lease_release")
    assert count_leases(database) == (0 if freed else SHARDS)
    assert read_dead_letters(database) == []

"""Several real workers on one deployment: they share it, take over from each other, and stay exact.

Each waits for what must come; how long it takes is not asserted.
"""

import os
import random
import signal

import psycopg

from acceptance.worker_processes import StartWorker, WorkerProcess
from conditions import wait_until
from frame_delivery import (
    EVENTS,
    SHARDS,
    Sender,
    assert_exact,
    connect_to,
    count_consumed_frames,
    count_shards_by_worker,
    interleave_runs,
    make_frames,
)
from runfold.protocol.streams import agree_on_shards, connect


def shared_by(database: psycopg.Connection, *workers: WorkerProcess) -> bool:
    """Whether exactly these hold all shards, as evenly as can be."""
    held = count_shards_by_worker(database)
    numbers = sorted(held.values())
    return (
        set(held) == {worker.pid for worker in workers}
        and sum(numbers) == SHARDS
        and numbers[-1] - numbers[0] <= 1
    )


def test_workers_join_leave_and_are_killed_under_load(
    start_worker: StartWorker, redis_url: str, migrated_url: str
) -> None:
    """One, three, two after SIGKILL, three, two after SIGTERM: shares are even, tables exact."""
    events = interleave_runs(random.Random(30), EVENTS)
    with connect(redis_url) as client, connect_to(migrated_url) as database:
        agree_on_shards(client, SHARDS)

        def settle(*workers: WorkerProcess) -> None:
            wait_until(lambda: shared_by(database, *workers), what=f"{len(workers)} to share")
            before = count_consumed_frames(database)
            wait_until(lambda: count_consumed_frames(database) > before, what="progress")

        sender = Sender(redis_url, make_frames(events), pause_s=0.015, endless=True)
        sender.start()
        first = start_worker(redis_url, migrated_url)
        settle(first)
        second, third = (start_worker(redis_url, migrated_url) for _ in range(2))
        settle(first, second, third)
        first.kill()
        settle(second, third)
        fourth = start_worker(redis_url, migrated_url)
        settle(second, third, fourth)
        assert second.terminate() == 0
        settle(third, fourth)
        sender.finish()

        assert_exact(client, database, events)
        third.assert_lives()
        fourth.assert_lives()
        assert count_consumed_frames(database) == sender.sent


def test_a_worker_that_was_paused_finds_its_shards_taken(
    start_worker: StartWorker, redis_url: str, migrated_url: str
) -> None:
    """Stopped in the middle of its work, it wakes up, writes nothing wrong, and shares again."""
    events = interleave_runs(random.Random(31), EVENTS)
    with connect(redis_url) as client, connect_to(migrated_url) as database:
        agree_on_shards(client, SHARDS)
        paused = start_worker(redis_url, migrated_url)
        wait_until(lambda: shared_by(database, paused), what="the first to have all")
        sender = Sender(redis_url, make_frames(events), pause_s=0.01, endless=True)
        sender.start()
        wait_until(lambda: count_consumed_frames(database) > 0, what="the first commits")
        os.kill(paused.pid, signal.SIGSTOP)
        try:
            other = start_worker(redis_url, migrated_url)
            wait_until(lambda: shared_by(database, other), what="the second to take over")
        finally:
            os.kill(paused.pid, signal.SIGCONT)
        wait_until(lambda: shared_by(database, paused, other), what="both to share again")
        sender.finish()

        assert_exact(client, database, events)
        paused.assert_lives()
        other.assert_lives()
        assert count_consumed_frames(database) == sender.sent

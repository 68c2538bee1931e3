"""Runners that emit faster than events are sent: none is dropped, and every run is complete."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import redis

from conditions import is_folded, run_fold_worker, wait_until
from runfold import Flushed, Logged, Recorder
from runfold.protocol.frames import decode_frame
from runfold.settings import Backpressure
from runfold_stack.servers.redis_server import RedisServer

pytestmark = pytest.mark.slow

MakeRedis = Callable[..., RedisServer]

SHARDS = 8

FLOOD = """
import asyncio, json, os, sys, threading
import msgspec
from runfold import Recorder

RUNS = int(sys.argv[1])
DATA = {"text": "x" * 289}
recorder = Recorder()

def record_one():
    with recorder.run("flood", inputs=DATA) as run:
        for number in range(3):
            with run.node(f"node {number}", inputs=DATA) as node:
                node.outputs = DATA
        run.outputs = DATA

def record(runs=RUNS):
    for _ in range(runs):
        record_one()

def record_in_threads():
    threads = [threading.Thread(target=record, args=(RUNS // 8,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

async def record_in_task(runs):
    for _ in range(runs):
        async with recorder.run("flood", inputs=DATA) as run:
            for number in range(3):
                async with run.node(f"node {number}", inputs=DATA) as node:
                    node.outputs = DATA
                    await asyncio.sleep(0)
            run.outputs = DATA

async def record_in_tasks():
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(record_in_task(RUNS // 8))

def record_in_child():
    record_one()
    recorder.flush(60)
    if child := os.fork():
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    record(RUNS - 1)

{
    "one thread": record,
    "eight threads": record_in_threads,
    "asyncio tasks": lambda: asyncio.run(record_in_tasks()),
    "forked child": record_in_child,
}[sys.argv[2]]()
print(json.dumps(msgspec.to_builtins(recorder.flush(120))), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("manner", "runs"),
    [
        ("one thread", 20_000),
        ("eight threads", 12_000),
        ("asyncio tasks", 12_000),
        # There the end of each run waits until its events are in Redis, so more prove no more.
        ("forked child", 4_000),
    ],
)
def test_a_flood_drops_nothing(
    manner: str,
    runs: int,
    client: redis.Redis,
    database: psycopg.Connection,
    redis_url: str,
    migrated_url: str,
) -> None:
    """With default settings, into a deployment that works, through the context managers."""
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", FLOOD, str(runs), manner],
            env=os.environ | {"RUNFOLD_REDIS_URL": redis_url},
            capture_output=True,
            check=True,
            timeout=300,
        )
        flushed = Flushed(**json.loads(done.stdout))
        wait_until(lambda: is_folded(client, database), what="the fold", timeout_s=300)
    assert (flushed.pending, flushed.dropped, flushed.spooled) == (0, 0, 0)
    found = database.execute(
        "SELECT count(*), sum(nodes_completed) FROM runs WHERE status = 'completed'"
    ).fetchone()
    assert found == (runs, 3 * runs)


def first_seen(url: str) -> list[int]:
    """The ids of all events in the streams, in the order in which each came first."""
    found: dict[int, None] = {}
    with redis.Redis.from_url(url) as client:
        for key in client.keys("runfold:*:events"):
            for _, fields in client.xrange(key):
                found |= dict.fromkeys(envelope.id for envelope, _ in decode_frame(fields).events)
    return list(found)


@pytest.mark.parametrize("backpressure", ["spool", "block", "drop_oldest"])
def test_a_flood_through_a_small_buffer_drops_nothing(
    redis_url: str, backpressure: Backpressure
) -> None:
    """In every mode the runner waits for room while Redis accepts events."""
    with Recorder(redis_url, buffer_events=100, backpressure=backpressure) as recorder:
        for number in range(20_000):
            recorder.emit(Logged(run="r", id=number, text="x"))
        assert recorder.flush(60) == Flushed(sent=20_000, pending=0, dropped=0)
    assert first_seen(redis_url) == list(range(20_000))


def test_executions_go_through_a_buffer_that_is_full_of_single_events(redis_url: str) -> None:
    """A large execution finds room although small events keep arriving."""
    nodes = [{"node": f"node {number}", "status": "completed"} for number in range(40)]
    over = threading.Event()

    def emit() -> None:
        while not over.is_set():
            recorder.emit(Logged(run="single", text="x"))

    with Recorder(redis_url, buffer_events=100) as recorder:
        emitting = threading.Thread(target=emit)
        emitting.start()
        try:
            for _ in range(20):
                recorder.record("whole", started_at=datetime.now(UTC), duration_ms=1, nodes=nodes)
        finally:
            over.set()
            emitting.join()
        flushed = recorder.flush(60)
    assert (flushed.pending, flushed.dropped) == (0, 0)


def test_an_execution_larger_than_the_buffer_is_recorded(redis_url: str) -> None:
    """It goes in when the buffer is empty."""
    nodes = [{"node": f"node {number}", "status": "completed"} for number in range(100)]
    with Recorder(redis_url, buffer_events=20) as recorder:
        for _ in range(3):
            recorder.record("w", started_at=datetime.now(UTC), duration_ms=1, nodes=nodes)
        assert recorder.flush(60).dropped == 0


def test_a_runner_spools_by_itself_while_redis_hangs(make_redis: MakeRedis, tmp_path: Path) -> None:
    """While the flusher hangs in a call nothing is dropped, and nothing overtakes the spool."""
    server = make_redis()
    with Recorder(
        server.url,
        spool_dir=str(tmp_path / "spool"),
        buffer_events=100,
        buffer_wait_s=0.2,
        heartbeat_s=0,
    ) as recorder:
        recorder.emit(Logged(run="r", id=0, text="x"))
        assert recorder.flush(60).sent == 1
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            for number in range(1, 5000):
                recorder.emit(Logged(run="r", id=number, text="x"))
            assert recorder.flush(0).dropped == 0
            assert list((tmp_path / "spool").iterdir())
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert recorder.flush(60) == Flushed(sent=5000, pending=0, dropped=0)
    assert first_seen(server.url) == list(range(5000))

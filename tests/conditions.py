"""Waiting for conditions, never for a time: what is slow passes late, what never comes fails."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import psycopg
import redis

from runfold.protocol.streams import stream_key
from runfold_storage.checkpoints.positions import load_positions
from runfold_workers.consumer.worker import Worker, WorkerSettings


def wait_until(
    condition: Callable[[], object], *, what: str = "the condition", timeout_s: float = 180
) -> None:
    """Return when the condition holds; fail, naming it, when it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain for {what}"
        time.sleep(0.02)


def is_folded(client: redis.Redis, connection: psycopg.Connection) -> bool:
    """Whether the position of every shard is at the last frame of its stream, and trimmed to it."""
    positions = load_positions(connection)
    for shard, position in positions.items():
        if not client.exists(stream_key(shard)):
            continue
        stream = client.xinfo_stream(stream_key(shard))
        if stream["last-generated-id"].decode() != position.position or stream["length"]:
            return False
    return bool(positions)


class RunnableWorker(Protocol):
    """A worker of any kind."""

    def run(self) -> None: ...

    def stop(self) -> None: ...


@contextmanager
def run_fold_worker(redis_url: str, database_url: str, shards: int) -> Iterator[threading.Thread]:
    """A worker at work; leaving stops it, and fails if it has died of anything."""
    with run_in_thread(Worker(WorkerSettings(redis_url, database_url, shards))) as thread:
        yield thread


@contextmanager
def run_in_thread(worker: RunnableWorker) -> Iterator[threading.Thread]:
    """The same with a worker that the test can look into."""
    died: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:
            died.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        worker.stop()
        thread.join(30)
    assert not thread.is_alive(), "the worker does not stop"
    if died:
        raise died[0]

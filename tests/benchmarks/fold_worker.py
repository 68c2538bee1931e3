"""A child that is one worker, and how its progress is followed from outside.

The clock starts when the worker, all modules loaded, is told to go, so that connecting and taking
leases count; it stops when `positions` says that the last frame of every stream is committed.
"""

import logging
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

import psycopg
import redis

from benchmarks.children import Child, arguments, run_worker
from benchmarks.meter import Meter, peak_bytes
from benchmarks.servers import Servers
from runfold.protocol import streams
from runfold_workers.consumer.worker import Worker, WorkerSettings

POLL_S: Final = 0.01
_LOOK_AT_MEMORY_S: Final = 0.5
_STALLED_S: Final = 120.0

StreamId = tuple[int, int]


class Folded(NamedTuple):
    """How long it took in all, and to the first commit; CPU seconds by process; peak memory."""

    elapsed_s: float
    first_commit_s: float
    used: dict[str, float]
    peak_bytes: int


def start_worker(servers: Servers, database_url: str) -> Child:
    """A worker that is ready to go."""
    return Child("fold_worker", redis_url=servers.redis_url, database_url=database_url)


def fold_all(servers: Servers, database_url: str, worker: Child) -> Folded:
    """Let a fresh worker go and wait until it has committed all that is in the streams."""
    worker.await_ready()
    with psycopg.connect(database_url, autocommit=True) as connection:
        targets = last_ids(servers.redis_url)
        before = load_positions(connection)
        meter = Meter(worker=worker.pid, **servers.pids)
        began = time.perf_counter()
        worker.release()
        while not _has_moved(before, load_positions(connection)):
            worker.check()
            if time.perf_counter() - began > _STALLED_S:
                raise TimeoutError("the worker commits nothing")
            time.sleep(POLL_S)
        first_commit_s = time.perf_counter() - began
        peak = await_folded(connection, targets, worker)
        elapsed_s = time.perf_counter() - began
        used = meter.read()
    return Folded(elapsed_s, first_commit_s, used, max(peak, peak_bytes(worker.pid)))


def last_ids(redis_url: str) -> dict[int, StreamId]:
    """The last entry of each stream that has any."""
    found = {}
    with redis.Redis.from_url(redis_url) as client:
        for shard in range(streams.agree_on_shards(client)):
            if last := client.xrevrange(streams.stream_key(shard), count=1):
                found[shard] = parse_id(last[0][0].decode())
    return found


def await_folded(
    connection: psycopg.Connection, targets: Mapping[int, StreamId], worker: Child
) -> int:
    """Wait until these positions are committed; returns the worker's peak memory in bytes.

    Raises `TimeoutError` when nothing moves for two minutes.
    """
    peak = 0
    before: dict[int, StreamId] = {}
    moved_at = looked_at = time.monotonic()
    while not covers(positions := load_positions(connection), targets):
        now = time.monotonic()
        if positions != before:
            before, moved_at = positions, now
        elif now - moved_at > _STALLED_S:
            raise TimeoutError(f"the fold stands still at {positions}, before {dict(targets)}")
        if now - looked_at > _LOOK_AT_MEMORY_S:
            peak, looked_at = max(peak, peak_bytes(worker.pid)), now
            worker.check()
        time.sleep(POLL_S)
    return peak


def load_positions(connection: psycopg.Connection) -> dict[int, StreamId]:
    """How far each shard is committed."""
    rows = connection.execute("SELECT shard, position FROM positions").fetchall()
    return {shard: parse_id(position) for shard, position in rows}


def await_positions(database_url: str) -> None:
    """Until a worker has connected and begun to wait for events."""
    deadline = time.monotonic() + _STALLED_S
    with psycopg.connect(database_url, autocommit=True) as connection:
        while not load_positions(connection) and time.monotonic() < deadline:
            time.sleep(0.01)
    time.sleep(0.5)


def covers(positions: Mapping[int, StreamId], targets: Mapping[int, StreamId]) -> bool:
    """Whether all of these are committed."""
    return all(positions.get(shard, (0, 0)) >= target for shard, target in targets.items())


def _has_moved(before: Mapping[int, StreamId], now: Mapping[int, StreamId]) -> bool:
    """Rows that a worker has only just made, at the very beginning, are no commit yet."""
    return any(position > before.get(shard, (0, 0)) for shard, position in now.items())


def parse_id(entry_id: str) -> StreamId:
    """`1763690000000-3` as a pair that compares as Redis compares."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence)


def main() -> None:
    """In the child."""
    given = arguments()
    logging.basicConfig(level=logging.WARNING)
    worker = Worker(WorkerSettings(given["redis_url"], given["database_url"]))
    run_worker(worker)


if __name__ == "__main__":
    main()

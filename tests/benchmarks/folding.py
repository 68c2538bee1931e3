"""Events a second from a filled stream to committed rows, and plain COPY of the same rows."""

import statistics
import threading
import time
from typing import Any

import psycopg
import redis

from benchmarks.workload import envelopes, fill
from runfold import streams
from runfold.ids import run_key
from runfold_storage.batches import EVENT_COLUMNS
from runfold_storage.copying import copy_rows
from runfold_storage.ledger import to_row
from runfold_workers.worker import Worker, WorkerSettings


def measure_fold(redis_url: str, database_url: str, count: int, *, packed: bool) -> float:
    """Events a second that one worker folds while `count` of them wait."""
    with redis.Redis.from_url(redis_url) as client:
        shards = streams.agree_on_shards(client)
        filled = fill(client, envelopes(count, begin_us=time.time_ns() // 1000), packed=packed)
        worker = Worker(WorkerSettings(redis_url, database_url))
        thread = threading.Thread(target=worker.run)
        began = time.perf_counter()
        thread.start()
        try:
            while any(client.xlen(streams.stream_key(shard)) for shard in range(shards)):
                if not thread.is_alive():
                    raise RuntimeError("the worker ended before the streams were empty")
                time.sleep(0.02)
            elapsed_s = time.perf_counter() - began
        finally:
            worker.stop()
            thread.join()
    return filled / elapsed_s


def measure_copy(database_url: str, count: int) -> float:
    """Rows a second that plain COPY brings into a table with the ledger's columns and key.

    One transaction for every 20,000 rows, as the fold's batches have; the rows are made before.
    """
    rows = [
        to_row(envelope, 0, run_key(envelope.run))
        for envelope in envelopes(count, begin_us=time.time_ns() // 1000)
    ]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE copied (LIKE events INCLUDING ALL)")
        try:
            began = time.perf_counter()
            for start in range(0, len(rows), 20_000):
                with connection.transaction():
                    copy_rows(connection, "copied", EVENT_COLUMNS, rows[start : start + 20_000])
            return len(rows) / (time.perf_counter() - began)
        finally:
            connection.execute("DROP TABLE copied")


def bytes_per_event(database_url: str) -> dict[str, float]:
    """What an event takes in PostgreSQL, with all tables and indexes that it touches."""
    with psycopg.connect(database_url) as connection:
        events = connection.execute("SELECT count(*) FROM events").fetchone()
        size = connection.execute(
            """
            SELECT sum(pg_total_relation_size(c.oid))
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = 'public' AND c.relkind = 'r'
            """
        ).fetchone()
    assert events is not None
    assert size is not None
    return {"events": events[0], "postgresql_bytes_per_event": float(size[0]) / events[0]}


def measure(redis_url: str, database_url: str, count: int, repeats: int) -> dict[str, Any]:
    """Medians of repeats, COPY and fold in turns so that a noisy minute hits both."""
    packed, json, copied = [], [], []
    for _ in range(repeats):
        copied.append(measure_copy(database_url, count))
        packed.append(measure_fold(redis_url, database_url, count, packed=True))
        json.append(measure_fold(redis_url, database_url, count // 4, packed=False))
    ratio = statistics.median(fold / copy for fold, copy in zip(packed, copied, strict=True))
    return {
        "fold_packed_events_per_s": statistics.median(packed),
        "fold_json_events_per_s": statistics.median(json),
        "copy_rows_per_s": statistics.median(copied),
        "fold_to_copy_ratio": ratio,
        **bytes_per_event(database_url),
    }

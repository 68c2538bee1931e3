"""How fast one worker folds what waits in Redis, what it uses for that, and what an event takes.

Each repeat has an empty Redis and a fresh database. The streams are filled first, by another
process; both servers have come to rest before the clock starts. Afterwards the projections must
hold every run, complete: a fold that forgets is not fast but wrong.
"""

import psycopg
import redis

from benchmarks.figures import Figures
from benchmarks.fold_worker import Folded, fold_all, start_worker
from benchmarks.meter import AVAILABLE, per_event
from benchmarks.orm import measure_orm
from benchmarks.profiler import Profile
from benchmarks.raw_copy import RawCopy
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from benchmarks.stream_filler import Filled, fill
from benchmarks.workload import NODES_PER_RUN
from runfold.protocol import streams


def measure(servers: Servers, sizes: Sizes, figures: Figures, profile: Profile | None) -> None:
    """Bursts of SDK frames: warm, cold, and beside raw COPY and an ORM in the same repeat."""
    with servers.database() as url:
        raw = RawCopy(url, sizes.burst_runs, _shards(servers))
    figures.notes["copy_bytes_per_row"] = raw.bytes / raw.rows
    for number in range(sizes.repeats):
        with servers.database() as url:
            copied = raw.measure(url)
            orm = measure_orm(url, sizes.orm_events)
            filled, warm = _measure_warm(servers, url, sizes.burst_runs, figures)
            figures.add("copy.rows_per_s", copied)
            figures.add("fold.to_copy", warm / copied)
            figures.add("orm.events_per_s", orm)
            figures.add("fold.to_orm", warm / orm)
            figures.add("fold.xadd_per_s", filled.events / filled.xadd_s)
            figures.add("fold.to_xadd", warm * filled.xadd_s / filled.events)
            if number == sizes.repeats - 1:
                _measure_cold(servers, url, sizes.burst_runs, figures)
    if profile is not None:
        _profile(servers, sizes.burst_runs, figures, profile)


def measure_json(servers: Servers, sizes: Sizes, figures: Figures) -> None:
    """Frames of one event in plain JSON, as anyone may write them by hand."""
    for _ in range(sizes.repeats):
        with servers.database() as url:
            filled = fill(servers.redis_url, sizes.json_runs, packed=False)
            folded = fold_waiting(servers, url)
            check_folded(url, sizes.json_runs)
            figures.add("json.events_per_s", filled.events / folded.elapsed_s)
            _add_used("json", folded, filled.events, figures)


def measure_sustained(servers: Servers, sizes: Sizes, figures: Figures) -> None:
    """A backlog of millions, all of it in Redis before the worker starts."""
    if not sizes.sustained_runs:
        figures.skip("sustained.events_per_s", "only with --full")
        return
    with servers.database() as url:
        filled = fill(servers.redis_url, sizes.sustained_runs)
        folded = fold_waiting(servers, url)
        check_folded(url, sizes.sustained_runs)
        figures.add("sustained.events_per_s", filled.events / folded.elapsed_s)
        _add_used("sustained", folded, filled.events, figures)


def fold_waiting(servers: Servers, database_url: str) -> Folded:
    """One worker, a process of its own, folds all that waits."""
    with start_worker(servers, database_url) as worker:
        servers.settle(database_url)
        return fold_all(servers, database_url, worker)


def check_folded(database_url: str, runs: int, nodes: int = NODES_PER_RUN) -> None:
    """Raise when the projections do not hold exactly so many runs, all complete."""
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT count(*), sum(nodes_completed) FROM runs WHERE status = 'completed'"
        ).fetchone()
    if found != (runs, runs * nodes):
        raise RuntimeError(f"{runs} runs were sent; completed runs and their nodes are {found}")


def _measure_warm(servers: Servers, url: str, runs: int, figures: Figures) -> tuple[Filled, float]:
    filled = fill(servers.redis_url, runs)
    figures.add("bytes.redis", _redis_bytes(servers) / filled.events)
    with start_worker(servers, url) as worker:
        servers.settle(url)
        wal_before = _wal(url)
        folded = fold_all(servers, url, worker)
    figures.add("fold.first_commit_ms", folded.first_commit_s * 1000)
    figures.add("bytes.wal", (_wal(url) - wal_before) / filled.events)
    figures.add("bytes.postgresql", _table_bytes(url) / filled.events)
    check_folded(url, runs)
    _add_used("fold", folded, filled.events, figures)
    rate = filled.events / folded.elapsed_s
    figures.add("fold.warm_events_per_s", rate)
    return filled, rate


def _measure_cold(servers: Servers, url: str, runs: int, figures: Figures) -> None:
    """Once, into the database of the last warm burst: its indexes have to come from the disk."""
    filled = fill(servers.redis_url, runs)
    servers.settle(url)
    if reason := servers.make_cold():
        figures.skip("fold.cold_events_per_s", reason)
        return
    with start_worker(servers, url) as worker:
        folded = fold_all(servers, url, worker)
    check_folded(url, 2 * runs)
    figures.add("fold.cold_events_per_s", filled.events / folded.elapsed_s)


def _profile(servers: Servers, runs: int, figures: Figures, profile: Profile) -> None:
    """One more burst under the profiler, which counts for no figure."""
    with servers.database() as url:
        fill(servers.redis_url, runs)
        with start_worker(servers, url) as worker:
            worker.await_ready()
            recording = profile.start(worker.pid)
            fold_all(servers, url, worker)
        figures.notes["profile"] = profile.finish(recording)


def _add_used(part: str, folded: Folded, events: int, figures: Figures) -> None:
    if not AVAILABLE:
        figures.skip("worker.peak_rss_mb", "needs Linux's /proc")
        return
    for name, value in per_event(folded.used, events).items():
        figures.add(f"{part}.{name}_share" if name == "others" else f"{part}.{name}_cpu_us", value)
    figures.add("worker.peak_rss_mb", folded.peak_bytes / 1e6)


def _shards(servers: Servers) -> int:
    with redis.Redis.from_url(servers.redis_url) as client:
        return streams.agree_on_shards(client)


def _redis_bytes(servers: Servers) -> int:
    with redis.Redis.from_url(servers.redis_url) as client:
        keys = map(streams.stream_key, range(streams.agree_on_shards(client)))
        return sum(client.memory_usage(key, samples=0) or 0 for key in keys)


def _table_bytes(url: str) -> int:
    """All tables of ours with their indexes and TOAST."""
    return _one(
        url,
        """
        SELECT sum(pg_total_relation_size(c.oid))::bigint
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname !~ '^(pg_|information_schema$)' AND c.relkind IN ('r', 'm')
        """,
    )


def _wal(url: str) -> int:
    return _one(url, "SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint")


def _one(url: str, query: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])

"""How long from XADD until watchers are told, and what they cost.

Counted are the ends of runs: from before the XADD of the frame with the last event of a run until
its line has come to a client. One client that watches everything while 5,000 events/s go through,
the first 1.5 s of which do not count; then many clients of one API process, each with one of twenty
workflows, at 200 events/s. Each must be told of the end of each run of its filter.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import psycopg

from benchmarks.children import Child
from benchmarks.figures import Figures
from benchmarks.fold_worker import await_folded, await_positions, last_ids, start_worker
from benchmarks.meter import Meter, now_bytes, per_event
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from benchmarks.workload import WORKFLOWS

RATE: Final = 5_000
FAN_OUT_RATE: Final = 200
_WARM_UP_S: Final = 1.5
_LIMIT: Final = 1
"""Of the snapshot: it is not what is measured."""


class _Told(NamedTuple):
    """By run, when the last event was sent, and when the first and the last client were told."""

    ended_ns: dict[str, int]
    first_ns: dict[str, int]
    last_ns: dict[str, int]
    told: dict[str, int]


def measure(servers: Servers, sizes: Sizes, figures: Figures) -> None:
    """One client at a high rate, then many at a low one."""
    everything = [f"limit={_LIMIT}"]
    with servers.database() as url:
        told = _measure(servers, url, RATE, sizes.latency_s, everything, figures)
    for waits in _windows(told, told.first_ns, sizes.repeats):
        figures.add(f"live.{RATE}_p50_ms", _percentile(waits, 50))
        figures.add(f"live.{RATE}_p99_ms", _percentile(waits, 99))
    by_workflow = [
        f"limit={_LIMIT}&workflow=workflow-{number % WORKFLOWS}" for number in range(sizes.watchers)
    ]
    with servers.database() as url:
        told = _measure(servers, url, FAN_OUT_RATE, sizes.latency_s, by_workflow, figures)
    for waits in _windows(told, told.last_ns, 1):
        figures.add("live.fan_out_p50_ms", _percentile(waits, 50))
        figures.add("live.fan_out_p99_ms", _percentile(waits, 99))


def _measure(
    servers: Servers,
    url: str,
    rate: int,
    seconds: float,
    queries: Sequence[str],
    figures: Figures,
) -> _Told:
    pace = {"redis_url": servers.redis_url, "events_per_s": rate, "seconds": _WARM_UP_S + seconds}
    api = {"redis_url": servers.redis_url, "database_url": url}
    with (
        start_worker(servers, url) as worker,
        Child("paced_sender", **pace) as sender,
        Child("api_process", **api) as serving,
    ):
        sender.await_ready()
        servers.wear_in(url)
        servers.settle(url)
        worker.go()
        await_positions(url)
        serving.go()
        api_url = serving.answer()["url"]
        before = now_bytes(serving.pid)
        with Child("stream_clients", url=api_url, queries=list(queries)) as watching:
            watching.go()
            watching.answer()
            if len(queries) > 1:
                per_watcher = (now_bytes(serving.pid) - before) / len(queries)
                figures.add("live.watcher_kb", per_watcher / 1024)
            meter = Meter(
                worker=worker.pid,
                api=serving.pid,
                watchers=watching.pid,
                sender=sender.pid,
                **servers.pids,
            )
            sender.release()
            ended_ns = _await_sent(sender)
            used = meter.read()
            with psycopg.connect(url, autocommit=True) as connection:
                await_folded(connection, last_ids(servers.redis_url), worker)
            watching.release()
            seen = watching.answer()
    figures.notes[f"live_{rate}"] = {
        "runs": len(ended_ns),
        "watchers": len(queries),
        "cpu_us_per_event": per_event(used, round(rate * (_WARM_UP_S + seconds))),
    }
    told = _Told(ended_ns, seen["first_ns"], seen["last_ns"], seen["told"])
    _check(told, len(queries), seen["failed"])
    return told


def _await_sent(sender: Child) -> dict[str, int]:
    while "frames" not in (said := sender.answer()):
        pass
    ended_ns: dict[str, int] = said["ended_ns"]
    return ended_ns


def _check(told: _Told, watchers: int, failed: Sequence[str]) -> None:
    """Nobody was cut off, and everybody was told of every run of the filter, once or more."""
    if failed:
        raise RuntimeError(f"watchers were cut off: {failed}")
    filters = 1 if watchers == 1 else WORKFLOWS
    least = watchers // filters
    short = [run for run in told.ended_ns if told.told.get(run, 0) < least]
    if short:
        raise RuntimeError(f"{len(short)} of {len(told.ended_ns)} ends did not reach all watchers")


def _windows(told: _Told, seen_ns: dict[str, int], windows: int) -> list[list[float]]:
    """The milliseconds that each end took, by when it was sent; without the first, if cut."""
    first_ns = min(told.ended_ns.values()) + (int(_WARM_UP_S * 1e9) if windows > 1 else 0)
    window_ns = max(1, (max(told.ended_ns.values()) - first_ns) // windows + 1)
    found: list[list[float]] = [[] for _ in range(windows)]
    for run, sent_ns in told.ended_ns.items():
        if sent_ns >= first_ns:
            found[(sent_ns - first_ns) // window_ns].append((seen_ns[run] - sent_ns) / 1e6)
    return found


def _percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]

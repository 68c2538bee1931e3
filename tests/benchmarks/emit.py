"""What an event costs the runner, and how fast one process gets events into Redis.

Raw pipelined XADD of frames that were encoded before, in the same repeat, is the yardstick.
"""

import psycopg

from benchmarks.children import Child
from benchmarks.figures import Figures
from benchmarks.fold import check_folded
from benchmarks.fold_worker import await_folded, await_positions, last_ids, start_worker
from benchmarks.runner import FLOOD_NODES
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from benchmarks.stream_filler import fill
from benchmarks.workload import EVENTS_PER_RUN


def measure(servers: Servers, sizes: Sizes, figures: Figures) -> None:
    """Paced and saturated emission, each repeat in a process of its own."""
    for _ in range(sizes.repeats):
        paced = _run(servers, "paced", sizes.paced_events // EVENTS_PER_RUN)
        saturated = _run(servers, "saturated", sizes.producer_runs)
        servers.empty_redis()
        filled = fill(servers.redis_url, sizes.producer_runs)
        xadd_per_s = filled.events / filled.xadd_s
        servers.empty_redis()
        for name, value in paced.items():
            figures.add(f"emit.{name}", value)
        figures.add("emit.saturated_thread_us", saturated["saturated_thread_us"])
        figures.add("emit.process_us", saturated["process_us"])
        figures.add("producer.events_per_s", saturated["events_per_s"])
        figures.add("producer.xadd_per_s", xadd_per_s)
        figures.add("producer.to_xadd", saturated["events_per_s"] / xadd_per_s)


def measure_flood(servers: Servers, sizes: Sizes, figures: Figures) -> None:
    """One thread floods a deployment at work; each run that was accepted must be complete."""
    for _ in range(sizes.repeats):
        with servers.database() as url, start_worker(servers, url) as worker:
            servers.settle(url)
            worker.go()
            await_positions(url)
            flood = _run(servers, "flood", sizes.flood_runs)
            if not flood["dropped"]:
                with psycopg.connect(url, autocommit=True) as connection:
                    await_folded(connection, last_ids(servers.redis_url), worker)
                check_folded(url, sizes.flood_runs, FLOOD_NODES)
        for name, value in flood.items():
            figures.add(f"flood.{name}", value)


def _run(servers: Servers, manner: str, runs: int) -> dict[str, float]:
    with Child("runner", redis_url=servers.redis_url, manner=manner, runs=runs) as child:
        child.go()
        measured: dict[str, float] = child.answer()
        return measured

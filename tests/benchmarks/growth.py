"""Whether a fold costs more the more runs there are: bursts into a small and into a large history.

Each burst is folded by a worker that has just started, so both ends pay the same for its start.
"""

import statistics

from benchmarks.figures import Figures
from benchmarks.fold import check_folded, fold_waiting
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from benchmarks.stream_filler import fill


def measure(servers: Servers, sizes: Sizes, figures: Figures) -> None:
    """Events a second with `growth_top_runs` in the tables, over those with `growth_base_runs`."""
    with servers.database() as url:
        runs = _fold(servers, url, sizes.growth_base_runs, 0)[1]
        base, runs = _burst(servers, url, sizes, runs)
        while (missing := sizes.growth_top_runs - runs) > 0:
            runs = _fold(servers, url, min(missing, 100_000), runs)[1]
        top, runs = _burst(servers, url, sizes, runs)
    figures.notes["growth_runs"] = [sizes.growth_base_runs, sizes.growth_top_runs]
    for rate in base:
        figures.add("growth.base_events_per_s", rate)
    for rate in top:
        figures.add("growth.top_events_per_s", rate)
    figures.add("growth.ratio", statistics.median(top) / statistics.median(base))


def _burst(servers: Servers, url: str, sizes: Sizes, runs: int) -> tuple[list[float], int]:
    rates = []
    for _ in range(sizes.repeats):
        rate, runs = _fold(servers, url, sizes.growth_burst_runs, runs)
        rates.append(rate)
    return rates, runs


def _fold(servers: Servers, url: str, more: int, runs: int) -> tuple[float, int]:
    """Events a second for so many runs more; returns how many there are then."""
    filled = fill(servers.redis_url, more)
    folded = fold_waiting(servers, url)
    check_folded(url, runs + more)
    return filled.events / folded.elapsed_s, runs + more

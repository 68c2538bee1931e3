"""Measure the whole pipeline and each part of it, on private servers."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psycopg
from rich.console import Console

from benchmarks import deletion, emit, fold, growth, latency, live, machine, reads, report
from benchmarks.figures import Figures
from benchmarks.profiler import Profile
from benchmarks.servers import Servers, open_servers
from benchmarks.sizes import DEFAULT, FULL, QUICK, Sizes
from benchmarks.stream_filler import fill
from runfold_workers.jobs.worker import SearchIndexing

_AT_A_TIME: Final = 50_000
PARTS: Final = (
    "emit",
    "flood",
    "fold",
    "json",
    "sustained",
    "latency",
    "live",
    "deletion",
    "growth",
    "read",
)


def main() -> None:
    """Measure the parts that were asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small sizes, a minute or two")
    size.add_argument("--full", action="store_true", help="10 and 30 million events, an hour")
    parser.add_argument(
        "--only", type=_parts, default=PARTS, metavar="PART,…", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="one more burst with py-spy on the worker; a speedscope file beside the report",
    )
    parser.add_argument("--report", type=Path, default=Path("build/bench.json"))
    parser.add_argument(
        "--folder",
        type=Path,
        help="where the servers keep their data, instead of the system's /tmp",
    )
    options = parser.parse_args()
    sizes = QUICK if options.quick else FULL if options.full else DEFAULT
    profile = Profile(options.report.with_suffix(".speedscope.json")) if options.profile else None

    console = Console(stderr=True)
    figures = Figures()
    context: dict[str, Any] = {"size": sizes.name, "machine": machine.describe(options.folder)}
    seconds: dict[str, float] = {}
    with open_servers(options.folder) as servers:
        context["servers"] = servers.versions()
        measures: dict[str, Callable[[], None]] = {
            "emit": lambda: emit.measure(servers, sizes, figures),
            "flood": lambda: emit.measure_flood(servers, sizes, figures),
            "fold": lambda: fold.measure(servers, sizes, figures, profile),
            "json": lambda: fold.measure_json(servers, sizes, figures),
            "sustained": lambda: fold.measure_sustained(servers, sizes, figures),
            "latency": lambda: latency.measure(servers, sizes, figures),
            "live": lambda: live.measure(servers, sizes, figures),
            "deletion": lambda: deletion.measure(servers, sizes, figures),
            "growth": lambda: growth.measure(servers, sizes, figures),
            "read": lambda: _measure_reads(servers, sizes, figures),
        }
        for part in (part for part in PARTS if part in options.only):
            console.print(f"{part} …")
            began = time.monotonic()
            try:
                measures[part]()
            finally:  # what has been measured outlives what goes wrong an hour later
                seconds[part] = round(time.monotonic() - began, 1)
                context |= {"seconds": seconds, "python_loop_ms_at_end": machine.loop_ms()}
                report.write(options.report, figures, context)
    report.show(figures, f"Runfold, {sizes.name} sizes")
    console.print(f"report: {options.report}; seconds by part: {seconds}", soft_wrap=True)
    if profile is not None:
        console.print(f"profile: {figures.notes.get('profile', 'only with the part `fold`')}")


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(","))
    if unknown := set(parts) - set(PARTS):
        raise argparse.ArgumentTypeError(
            f"there is no part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}"
        )
    return parts


def _measure_reads(servers: Servers, sizes: Sizes, figures: Figures) -> None:
    base = _read_month(servers, sizes, sizes.read_base_runs)
    top = _read_month(servers, sizes, sizes.read_top_runs)
    figures.notes["read_runs"] = [sizes.read_base_runs, sizes.read_top_runs]
    figures.notes["read"] = {"base": base, "top": top}
    for name, its in top.items():
        kind = "bounded" if its["bounded"] else "read"
        figures.add(f"{kind}.sql_p99_ms", its["sql_p99"])
        figures.add(f"{kind}.http_p99_ms", its["http_p99"])
        figures.add(f"{kind}.growth", its["sql_p50"] / base[name]["sql_p50"])


def _read_month(servers: Servers, sizes: Sizes, runs: int) -> dict[str, dict[str, float]]:
    """A month of so many runs, folded in the order in which they began, then read."""
    end_us = time.time_ns() // 1000
    with servers.database() as url:
        for first in range(0, runs, _AT_A_TIME):
            more = min(_AT_A_TIME, runs - first)
            fill(servers.redis_url, more, month=(first, runs, end_us))
            fold.fold_waiting(servers, url)
        with psycopg.connect(url, autocommit=True) as connection:
            indexing = SearchIndexing(connection)
            while indexing.turn():
                pass
            connection.execute("VACUUM (ANALYZE)")  # as autovacuum has done a minute later
        return reads.measure(servers.redis_url, url, sizes.read_rounds)


if __name__ == "__main__":
    main()

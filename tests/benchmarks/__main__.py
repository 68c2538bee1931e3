"""Run the benchmarks on a private stack: one table on the terminal, one report in JSON."""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks import emitting, folding, reading
from runfold_api.serving import bind, make_server, url_of
from runfold_api.settings import Settings
from runfold_stack.local import Endpoints, open_stack
from runfold_storage.migrate import migrate


def main() -> None:
    """Measure everything once, with repeats inside."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--report", type=Path, default=Path("build/bench.json"))
    options = parser.parse_args()
    scale = 10 if options.quick else 1
    console = Console(stderr=True)

    figures: dict[str, Any] = {"machine": machine()}
    with stack() as endpoints:
        redis_url, database_url = endpoints.redis_url, endpoints.database_url
        migrate(database_url)
        console.print("emit …")
        rounds = [emitting.measure(redis_url, 200_000 // scale) for _ in range(options.repeats)]
        figures["emit"] = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
    with stack() as endpoints:
        redis_url, database_url = endpoints.redis_url, endpoints.database_url
        migrate(database_url)
        console.print("fold and COPY …")
        count = 400_000 // scale
        figures["fold"] = folding.measure(redis_url, database_url, count, options.repeats)
    with stack() as endpoints, serving(endpoints) as api_url:
        console.print("reads …")
        folding.measure_fold(
            endpoints.redis_url, endpoints.database_url, 1_000_000 // scale, packed=True
        )
        with psycopg.connect(endpoints.database_url, autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE)")  # as autovacuum has done a minute later
        figures["read"] = reading.measure(endpoints.database_url, api_url, 500 // scale)

    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(figures, indent=2) + "\n")
    show(figures)
    console.print(f"report: {options.report}")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"cores": os.cpu_count(), "python": platform.python_version(), "argv": sys.argv[1:]}


@contextmanager
def stack() -> Iterator[Endpoints]:
    """Servers of our own, as durable as `runfold up` has them."""
    with tempfile.TemporaryDirectory(prefix="runfold-bench-") as folder:
        os.chmod(folder, 0o755)
        with open_stack(Path(folder) / "data", die_with_parent=True) as opened:
            yield opened.endpoints


@contextmanager
def serving(endpoints: Endpoints) -> Iterator[str]:
    """The API in a thread of this process."""
    migrate(endpoints.database_url)
    settings = Settings(redis_url=endpoints.redis_url, database_url=endpoints.database_url)
    with bind(port=0) as listener:
        listener.listen()
        server = make_server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield url_of(listener)
        finally:
            server.should_exit = True
            thread.join()


def show(figures: dict[str, Any]) -> None:
    """The table."""
    table = Table("figure", "measured", title="Runfold")
    for part in ("emit", "fold"):
        for name, value in figures[part].items():
            table.add_row(name, f"{value:,.2f}" if value < 1000 else f"{value:,.0f}")
    for name, value in figures["read"].items():
        if isinstance(value, dict):
            for kind, times in value.items():
                label = f"{name}, {kind.removesuffix('_ms')}, p50 / p99"
                table.add_row(label, f"{times['p50']:.2f} / {times['p99']:.2f} ms")
        else:
            table.add_row(name, f"{value:,}")
    Console().print(table)


if __name__ == "__main__":
    main()

"""How long reads take once there are many runs, in Python and over HTTP."""

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx

from runfold_storage.history import History


def measure(database_url: str, api_url: str, rounds: int) -> dict[str, Any]:
    """p50 and p99 in milliseconds of each read."""
    with History(database_url) as history, httpx.Client(base_url=api_url) as client:
        first = history.runs(limit=500)
        ids = [run.id for run in first.runs]
        deep = history.runs(limit=50, offset=5000).next_cursor
        chance = random.Random(2)
        reads: dict[str, tuple[Callable[[], Any], str]] = {
            "list page": (history.runs, "/api/v1/runs"),
            "list page, project and workflow": (
                lambda: history.runs(project="bench", workflow="workflow-7"),
                "/api/v1/runs?project=bench&workflow=workflow-7",
            ),
            "deep cursor page": (
                lambda: history.runs(cursor=deep),
                f"/api/v1/runs?cursor={deep}",
            ),
            "one run": (
                lambda: history.run(chance.choice(ids)),
                f"/api/v1/runs/{chance.choice(ids)}",
            ),
            "statistics of a workflow": (
                lambda: history.stats(workflow="workflow-7"),
                "/api/v1/stats?workflow=workflow-7",
            ),
        }
        figures: dict[str, Any] = {"runs": first.total.value}
        for name, (read, path) in reads.items():
            figures[name] = {
                "python_ms": _times(read, rounds),
                "http_ms": _times(partial(_get, client, path), rounds),
            }
    return figures


def _get(client: httpx.Client, path: str) -> None:
    client.get(path).raise_for_status()


def _times(read: Callable[[], Any], rounds: int) -> dict[str, float]:
    for _ in range(5):
        read()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        read()
        times.append((time.perf_counter() - began) * 1000)
    times.sort()
    return {"p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100]}

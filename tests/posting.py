"""Histories for the page, posted as any system posts them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from waiting import wait_until


def event(kind: str, run: str, age_s: float = 0, **fields: Any) -> dict[str, Any]:
    """An event that happened so long ago."""
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    return {"type": kind, "run": run, "at": at.isoformat(timespec="microseconds"), **fields}


def post(api: httpx.Client, *events: dict[str, Any]) -> None:
    """Send events, and wait until they are folded."""
    answer = api.post("/api/v1/events", json=list(events))
    assert answer.status_code == 202, answer.text
    wanted = {shard: _key(position) for shard, position in answer.json()["position"].items()}

    def is_there() -> bool:
        reached = api.get("/api/v1/runs?limit=1").json()["watermark"]["position"]
        return all(_key(reached[shard]) >= position for shard, position in wanted.items())

    wait_until(is_there, what="the fold")


def _key(position: str) -> tuple[int, ...]:
    return tuple(map(int, position.split("-")))


def ended_run(run: str, age_s: float = 60, end: str = "completed", **fields: Any) -> list[Any]:
    """A run that took a second."""
    return [
        event("started", run, age_s, **({"workflow": "w"} | fields)),
        event(end, run, age_s - 1),
    ]


def failed_run(run: str, stack: str) -> list[Any]:
    """A run whose second node fails."""
    error = {"type": "ValueError", "message": "no rows", "stack": stack}
    return [
        event("started", run, 60, workflow="report"),
        event("node_started", run, 59, node="extract"),
        event("node_finished", run, 58, node="extract"),
        event("node_started", run, 58, node="load", parents=["extract"], inputs={"part": 7}),
        event("node_finished", run, 57, node="load", status="failed", error=error),
        event("failed", run, 56, error={**error, "stack": None, "node": "load"}),
    ]

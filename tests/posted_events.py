"""Histories for the page, posted as any system posts them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from conditions import wait_until


def make_event_ago(kind: str, run: str, age_s: float = 0, **fields: Any) -> dict[str, Any]:
    """An event that happened so long ago."""
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    return {"type": kind, "run": run, "at": at.isoformat(timespec="microseconds"), **fields}


def post_events(api: httpx.Client, *events: dict[str, Any]) -> None:
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


def make_ended_run(run: str, age_s: float = 60, end: str = "completed", **fields: Any) -> list[Any]:
    """A run that took a second."""
    return [
        make_event_ago("started", run, age_s, **({"workflow": "w"} | fields)),
        make_event_ago(end, run, age_s - 1),
    ]


def make_failed_run(run: str, stack: str) -> list[Any]:
    """A run whose second node fails."""
    error = {"type": "ValueError", "message": "no rows", "stack": stack}
    return [
        make_event_ago("started", run, 60, workflow="report"),
        make_event_ago("node_started", run, 59, node="extract"),
        make_event_ago("node_finished", run, 58, node="extract"),
        make_event_ago(
            "node_started", run, 58, node="load", parents=["extract"], inputs={"part": 7}
        ),
        make_event_ago("node_finished", run, 57, node="load", status="failed", error=error),
        make_event_ago("failed", run, 56, error={**error, "stack": None, "node": "load"}),
    ]

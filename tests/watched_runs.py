"""Runs, nodes and events of a stream, for the tests of `watch` and of its drawings."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from runfold_stack.watch.sse_client import Received
from runfold_storage.read_models.summaries import (
    NodeCounts,
    NodeSummary,
    RunPage,
    RunSummary,
    Total,
    UsageTotals,
    Watermark,
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def summary(run: str, status: str = "running", second: int = 0, **further: Any) -> RunSummary:
    facts: dict[str, Any] = {
        "project": "default",
        "workflow": "etl",
        "attempt": 1,
        "parent_run": None,
        "trigger_type": None,
        "user": None,
        "session": None,
        "tags": {},
        "queued_at": None,
        "started_at": NOON + timedelta(seconds=second),
        "finished_at": None,
        "duration_ms": None,
        "usage": UsageTotals(),
        "exit_code": None,
        "nodes": NodeCounts(),
        "error": None,
    }
    return RunSummary(id=run, status=status, **(facts | further))


def node(name: str, *parents: str, status: str = "pending", **further: Any) -> NodeSummary:
    facts: dict[str, Any] = {
        "name": name,
        "node_type": None,
        "attempt": 1,
        "started_at": None,
        "finished_at": None,
        "duration_ms": None,
        "usage": UsageTotals(),
        "error": None,
    }
    return NodeSummary(node=name, status=status, parents=list(parents), **(facts | further))


def received(event: str, data: Any) -> Received:
    return Received(event, msgspec.json.encode(data), None)


def page(*runs: RunSummary) -> Received:
    """A snapshot, newest first."""
    total = Total(len(runs), "exact")
    return received("snapshot", RunPage(list(runs), None, None, total, Watermark({}, None, None)))


def logged(*texts: str, first: int = 0) -> dict[str, Any]:
    return {
        "events": [
            {"type": "logged", "run": "r", "id": n, "at": f"2026-11-21T12:00:{n:02}Z", "text": text}
            for n, text in enumerate(texts, first)
        ]
    }


def snapshot(
    run: RunSummary, *nodes: NodeSummary, output: dict[str, Any] | None = None
) -> Received:
    events = [] if output is None else output["events"]
    return received("snapshot", {"run": run, "nodes": nodes, "output": events})

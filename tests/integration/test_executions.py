"""`POST /api/v1/executions`: whole executions over REST, folded by the real worker."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from conditions import run_fold_worker, wait_until
from service_threads import run_api

FULL: dict[str, Any] = {
    "workflow": "import-orders",
    "id": "exec-1",
    "project": "shop",
    "trigger": {"type": "webhook", "url": "/hooks/7"},
    "user": "ann",
    "session": "s-9",
    "tags": {"env": "prod", "retry": 2},
    "metadata": {"components_executed": 2},
    "queued_at": "2026-11-20T09:59:58Z",
    "started_at": "2026-11-20T10:00:00Z",
    "finished_at": "2026-11-20T10:00:04Z",
    "inputs": {"order": 7, "api_key": "sk-123"},
    "outputs": {"saved": True},
    "usage": {"input_tokens": 12, "output_tokens": 3, "cost_usd": 0.004},
    "stdout": "one\ntwo\n",
    "nodes": [
        {
            "node": "fetch",
            "node_type": "http",
            "started_at": "2026-11-20T10:00:00Z",
            "duration_ms": 1500,
            "outputs": {"rows": 2},
        },
        {"node": "save", "parents": ["fetch"], "error": {"type": "Timeout", "message": "30 s"}},
        {"node": "mail", "parents": ["save"], "status": "skipped"},
    ],
    "error": {"type": "Timeout", "message": "30 s", "node": "save"},
}


@pytest.fixture
def api(redis_url: str, migrated_url: str) -> Iterator[httpx.Client]:
    with run_fold_worker(redis_url, migrated_url, 8), run_api(redis_url, migrated_url) as client:
        yield client


def post(api: httpx.Client, **execution: Any) -> dict[str, Any]:
    answer = api.post("/api/v1/executions", json=execution)
    assert answer.status_code == 202, answer.text
    accepted: dict[str, Any] = answer.json()
    return accepted


def read(api: httpx.Client, run: str, status: str) -> dict[str, Any]:
    """Wait until the run has this status, and return it."""
    found: dict[str, Any] = {}

    def has_come() -> bool:
        found.update(api.get(f"/api/v1/runs/{run}").json())
        return bool(found["status"] == status)

    wait_until(has_come, what=f"{run} to be {status}")
    return found


def test_a_whole_execution_is_one_run(api: httpx.Client) -> None:
    """All fields of the execution and its nodes can be read back; secrets are masked."""
    accepted = post(api, **FULL)
    assert accepted["run"] == "exec-1"
    assert len(accepted["position"]) == 1
    run = read(api, "exec-1", "failed")
    assert (run["workflow"], run["project"], run["user"]) == ("import-orders", "shop", "ann")
    assert run["trigger"] == {"type": "webhook", "data": {"url": "/hooks/7"}}
    assert run["tags"] == {"env": "prod", "retry": "2"}
    assert run["inputs"] == {"order": 7, "api_key": "[redacted]"}
    assert run["outputs"] == {"saved": True}
    assert run["duration_ms"] == 4000
    assert run["queued_at"] == "2026-11-20T09:59:58Z"
    assert run["usage"]["total_tokens"] == 15
    assert (run["error"]["type"], run["error"]["node"]) == ("Timeout", "save")
    nodes = {node["node"]: node for node in run["nodes"]}
    assert {name: node["status"] for name, node in nodes.items()} == {
        "fetch": "completed",
        "save": "failed",
        "mail": "skipped",
    }
    assert nodes["fetch"]["duration_ms"] == 1500
    assert nodes["mail"]["parents"] == ["save"]
    events = api.get("/api/v1/runs/exec-1/events").json()["events"]
    assert accepted["accepted"] == len(events)
    assert [event["text"] for event in events if event["type"] == "logged"] == ["one\ntwo\n"]


def test_sending_it_again_changes_nothing(api: httpx.Client) -> None:
    """A repeated request with the same id changes nothing."""
    first, second = post(api, **FULL), post(api, **FULL)
    assert first["run"] == second["run"]
    post(api, workflow="last", id="last", started_at="2026-11-20T10:00:00Z")
    read(api, "last", "completed")
    read(api, "exec-1", "failed")
    assert len(api.get("/api/v1/runs/exec-1/events").json()["events"]) == first["accepted"]
    assert api.get("/api/v1/stats?workflow=import-orders").json()["total"] == 1


def test_an_execution_that_goes_on_becomes_the_same_run(api: httpx.Client) -> None:
    """Pending, running, ended: one run, whose nodes stay pending until they are reported."""
    plan = [{"node": "a"}, {"node": "b", "parents": ["a"]}]
    post(api, workflow="w", id="live", status="pending", queued_at="2026-11-20T10:00:00Z")
    assert read(api, "live", "queued")["started_at"] is None
    at = "2026-11-20T10:00:01Z"
    post(api, workflow="w", id="live", status="running", started_at=at, nodes=plan)
    assert {node["status"] for node in read(api, "live", "running")["nodes"]} == {"pending"}
    over = {"started_at": at, "duration_ms": 20, "reason": "enough"}
    post(api, workflow="w", id="live", status="cancelled", nodes=plan[:1], **over)
    run = read(api, "live", "cancelled")
    assert [node["status"] for node in run["nodes"]] == ["completed", "pending"]
    assert (run["duration_ms"], run["reason"]) == (20, "enough")


def test_what_is_not_to_be_saved_is_not(api: httpx.Client) -> None:
    """`save: false` checks the request and records nothing."""
    accepted = post(api, workflow="w", save=False)
    assert (accepted["accepted"], accepted["position"]) == (0, {})
    assert api.get(f"/api/v1/runs/{accepted['run']}").status_code == 404


def test_without_an_id_it_is_a_new_run_each_time(api: httpx.Client) -> None:
    """A new id is generated and returned."""
    runs = {post(api, workflow="w", exit_code=code)["run"] for code in (0, 3)}
    assert len(runs) == 2
    wait_until(
        lambda: (
            {run["status"] for run in api.get("/api/v1/runs").json()["runs"]}
            == {"completed", "failed"}
        ),
        what="both",
    )


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({}, "workflow"),
        ({"workflow": ""}, "$.workflow"),
        ({"workflow": "w", "worklfow": "w"}, "worklfow"),
        ({"workflow": "w", "status": "lost"}, "$.status"),
        ({"workflow": "w", "started_at": "2026-11-20T10:00:00"}, "$.started_at"),
        ({"workflow": "w", "nodes": [{"name": "x"}]}, "$.nodes[0]"),
        ({"workflow": "w", "nodes": [{"node": "x", "attempt": 0}]}, "$.nodes[0].attempt"),
        ({"workflow": "w", "tags": {"a": []}}, "$.tags"),
        ([], "array"),
    ],
)
def test_a_broken_execution_is_refused_with_the_field(
    api: httpx.Client, wrong: Any, named: str
) -> None:
    """An invalid execution is not recorded at all."""
    answer = api.post("/api/v1/executions", json=wrong)
    assert answer.status_code == 400
    problem = answer.json()
    assert problem["type"] == "urn:runfold:problem:bad-execution"
    assert named in problem["detail"]
    assert api.get("/api/v1/runs").json()["runs"] == []

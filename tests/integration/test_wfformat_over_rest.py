"""Real executions: imported by the CLI, folded, and read back over REST."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from service_threads import run_api, run_worker

REAL = Path(__file__).parents[2] / "../shared/data/wfinstances"
REAL_FILES = sorted(REAL.glob("*.json"))

pytestmark = pytest.mark.skipif(not REAL_FILES, reason=f"no real WfFormat files in {REAL}")


def run_import(redis_url: str, migrated_url: str) -> list[str]:
    """Ids of the runs that `runfold import` says it imported, a run a file."""
    environment = os.environ | {
        "RUNFOLD_REDIS_URL": redis_url,
        "RUNFOLD_DATABASE_URL": migrated_url,
    }
    command = [str(Path(sys.executable).with_name("runfold")), "import", "--format", "wfformat"]
    done = subprocess.run(
        [*command, *map(str, REAL_FILES)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def start_of(text: str) -> datetime:
    """The collection has three forms of date."""
    for form in ("%Y%m%dT%H%M%S%z", "%m-%d-%yT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S%z"):
        try:
            return datetime.strptime(text, form).astimezone(UTC)
        except ValueError:
            continue
    raise AssertionError(f"a fourth form of date: {text}")


def test_every_real_execution_reads_back_as_the_file_says(
    redis_url: str, migrated_url: str
) -> None:
    """Nodes, counts, parents and durations over REST equal a plain reading of each file."""
    with run_worker(redis_url, migrated_url), run_api(redis_url, migrated_url) as api:
        runs = run_import(redis_url, migrated_url)
        assert len(set(runs)) == len(REAL_FILES)
        for run, path in zip(runs, REAL_FILES, strict=True):
            workflow = json.loads(path.read_text())["workflow"]
            detail = api.get(f"/api/v1/runs/{quote(run, safe='')}").raise_for_status().json()
            check_detail(detail, workflow)
        check_list_and_figures(api, runs)
        assert run_import(redis_url, migrated_url) == runs, "a second import is another run"
        assert api.get("/api/v1/runs").json()["total"] == {
            "value": len(runs),
            "relation": "exact",
        }


def check_detail(detail: dict[str, Any], workflow: dict[str, Any]) -> None:
    execution = workflow["execution"]
    ran = {task["id"]: task for task in execution["tasks"]}
    planned = {task["id"]: task for task in workflow["specification"]["tasks"]}
    assert detail["status"] == "completed"
    assert datetime.fromisoformat(detail["started_at"]) == start_of(execution["executedAt"])
    assert detail["duration_ms"] == pytest.approx(execution["makespanInSeconds"] * 1000, abs=1e-3)
    assert detail["node_counts"] == {
        "total": len(planned),
        "completed": len(ran),
        "pending": len(planned) - len(ran),
        "running": 0,
        "failed": 0,
        "skipped": 0,
        "cancelled": 0,
    }
    nodes = {node["node"]: node for node in detail["nodes"]}
    assert nodes.keys() == planned.keys()
    for task_id, task in ran.items():
        node = nodes[task_id]
        assert node["duration_ms"] == pytest.approx(task["runtimeInSeconds"] * 1000, abs=1e-3)
        assert sorted(node["parents"]) == sorted(planned[task_id]["parents"])
        assert node["inputs"]["command"]["program"] == task["command"]["program"]
        for parent in planned[task_id]["parents"]:
            assert nodes[parent]["finished_at"] <= node["started_at"]


def check_list_and_figures(api: httpx.Client, runs: list[str]) -> None:
    page = api.get("/api/v1/runs", params={"limit": 500}).json()
    assert {run["id"] for run in page["runs"]} == set(runs)
    stats = api.get("/api/v1/stats").json()
    assert (stats["total"], stats["completed"]) == (len(runs), len(runs))
    durations_ms = [run["duration_ms"] for run in page["runs"]]
    assert stats["duration_ms"]["min"] == min(durations_ms)
    assert stats["duration_ms"]["max"] == max(durations_ms)
    assert stats["duration_ms"]["avg"] == pytest.approx(sum(durations_ms) / len(runs), abs=1e-3)

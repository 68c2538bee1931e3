"""The four systems that Runfold replaces: each of their operations, by a real client.

One test for each operation in the table of `api/README.md`. The service, a worker and both
servers are real; what is written is read back with `wait_for`, as such a client would.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pytest
import redis

from conditions import wait_until
from databases import create_database, drop_database
from runfold import Recorder
from runfold_stack.servers.postgres_server import PostgresServer
from runfold_stack.servers.redis_server import RedisServer
from runfold_storage.history import History
from runfold_storage.migrate import head, migrate
from runfold_storage.postgres.connections import connect
from service_threads import run_api, run_worker

pytestmark = pytest.mark.slow


class Client:
    """What a system's own client would come down to."""

    def __init__(self, http: httpx.Client, redis_url: str, database_url: str) -> None:
        self.http = http
        self.redis_url = redis_url
        self.database_url = database_url
        self._position: dict[str, str] = {}

    def record(self, **execution: Any) -> str:
        """Send a whole execution; returns its id."""
        answer = self.http.post("/api/v1/executions", json=execution)
        assert answer.status_code == 202, answer.text
        self.note(answer.json()["position"])
        return str(answer.json()["run"])

    def note(self, position: dict[str, str]) -> None:
        """Remember how far reads have to wait: the last frame of each shard."""
        self._position |= position

    def get(self, path: str, **query: Any) -> Any:
        """Read what was written before."""
        wait_for = ",".join(f"{shard}:{frame}" for shard, frame in self._position.items())
        answer = self.http.get(f"/api/v1/{path}", params={**query, "wait_for": wait_for})
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def client(
    postgres_server: PostgresServer, migrated_template: str, redis_server: RedisServer
) -> Iterator[Client]:
    with redis.Redis.from_url(redis_server.url) as server:
        server.flushall()
    url = create_database(postgres_server, "four_systems", template=migrated_template)
    with run_api(redis_server.url, url) as http, run_worker(redis_server.url, url):
        yield Client(http, redis_server.url, url)
    drop_database(postgres_server, "four_systems")


# The module runner


def test_record_execution(client: Client) -> None:
    """A module's execution with its exit code, output and duration, in one call of the SDK."""
    with Recorder(client.redis_url) as recorder:
        run = recorder.record(
            "modules/report",
            started_at=datetime.now(UTC),
            duration_ms=1500,
            exit_code=3,
            stdout="42 rows\n",
            stderr="late\n",
        )
        assert recorder.flush(timeout_s=20).pending == 0
    with History(client.database_url) as history:
        failed: dict[str, Any] = {"workflow": "modules/report", "status": "failed"}
        wait_until(lambda: history.runs(**failed).runs, what="the fold")
        found = history.run(run)
        assert found is not None
        assert (found.exit_code, found.duration_ms) == (3, 1500)
        lines = history.logs(run)
        assert lines is not None
        assert [json.loads(bytes(line))["text"] for line in lines.events] == ["42 rows\n", "late\n"]


def test_get_execution(client: Client) -> None:
    """By its id, which may be the caller's own; one that is not known is a 404."""
    run = client.record(
        id="module/7", workflow="get", inputs={"x": 1}, outputs={"y": 2}, exit_code=0
    )
    found = client.get("runs/module%2F7")
    assert (found["id"], found["inputs"], found["outputs"]) == (run, {"x": 1}, {"y": 2})
    assert client.http.get("/api/v1/runs/never").status_code == 404


def test_list_executions(client: Client) -> None:
    """The newest first, of a module, as many as are asked for."""
    runs = [client.record(workflow="listed", exit_code=0) for _ in range(3)]
    found = client.get("runs", workflow="listed", limit=2)
    assert [run["id"] for run in found["runs"]] == runs[:0:-1]
    assert found["total"] == {"value": 3, "relation": "exact"}


def test_get_module_stats(client: Client) -> None:
    """How often, how well, how long."""
    for code in (0, 0, 0, 1):
        client.record(workflow="counted", exit_code=code, duration_ms=1000 * (code + 1))
    stats = client.get("stats", workflow="counted")
    assert (stats["total"], stats["failed"], stats["success_rate"]) == (4, 1, 0.75)
    assert (stats["duration_ms"]["min"], stats["duration_ms"]["max"]) == (1000, 2000)
    assert stats["duration_ms"]["p50"] == pytest.approx(1000, rel=0.01)


# The service that saves executions, or not


def test_save_execution(client: Client) -> None:
    """`save` on: it is there. `save` off: the request is checked, and nothing is recorded."""
    kept = client.record(workflow="saved", id="kept", save=True, outputs=1)
    client.record(workflow="saved", id="dropped", save=False, outputs=2)
    assert [run["id"] for run in client.get("runs", workflow="saved")["runs"]] == [kept]
    assert client.http.get("/api/v1/runs/dropped").status_code == 404
    with Recorder(client.redis_url) as recorder:
        with recorder.run("saved", save=False) as run:
            pass
        recorder.flush(timeout_s=20)
    assert client.http.get(f"/api/v1/runs/{run.id}").status_code == 404


def test_list_executions_by_page_and_status(client: Client) -> None:
    """By limit and offset or by cursor, both ways, of a status."""
    for number in range(7):
        status = "failed" if number % 2 else "completed"
        client.record(workflow="paged", id=f"paged-{number}", status=status)
    first = client.get("runs", workflow="paged", status="completed", limit=3)
    assert [run["id"] for run in first["runs"]] == ["paged-6", "paged-4", "paged-2"]
    assert first["total"]["value"] == 4
    query = {"workflow": "paged", "status": "completed", "limit": 3}
    second = client.get("runs", **query, cursor=first["next_cursor"])
    assert [run["id"] for run in second["runs"]] == ["paged-0"]
    assert client.get("runs", **query, offset=3)["runs"] == second["runs"]
    assert client.get("runs", **query, cursor=second["prev_cursor"])["runs"] == first["runs"]


def test_delete_all_executions(client: Client) -> None:
    """Of a project here, for other tests have runs too; without any filter it wants `all=true`."""
    for number in range(3):
        client.record(workflow="gone", project="deleted", duration_ms=number)
    assert client.get("runs", project="deleted")["total"]["value"] == 3
    answer = client.http.delete("/api/v1/runs", params={"project": "deleted"})
    assert answer.json() == {"deleted": 3}
    assert client.get("runs", project="deleted")["runs"] == []
    assert client.get("stats", project="deleted")["total"] == 0
    assert client.http.delete("/api/v1/runs").status_code == 400


def test_get_statistics(client: Client) -> None:
    """Of all, and by workflow."""
    client.record(workflow="one", project="statistics", duration_ms=5, usage={"cost_usd": 0.5})
    client.record(workflow="two", project="statistics", status="cancelled")
    stats = client.get("stats", project="statistics", group_by="workflow")
    assert (stats["total"], stats["cancelled"], stats["usage"]["cost_usd"]) == (2, 1, 0.5)
    assert {group["workflow"]: group["total"] for group in stats["groups"]} == {"one": 1, "two": 1}


# The logger of workflows


def test_log_execution(client: Client) -> None:
    """With its nodes and what set it off."""
    run = client.record(
        workflow="orders",
        trigger={"type": "webhook", "data": {"path": "/orders"}},
        nodes=[
            {"node": "fetch", "duration_ms": 1500, "outputs": [1]},
            {
                "node": "save",
                "parents": ["fetch"],
                "error": {"type": "Timeout", "message": "30 s"},
            },
        ],
        error={"type": "Timeout", "message": "30 s", "node": "save"},
    )
    found = client.get(f"runs/{run}")
    assert found["trigger"] == {"type": "webhook", "data": {"path": "/orders"}}
    assert [(node["node"], node["status"]) for node in found["nodes"]] == [
        ("fetch", "completed"),
        ("save", "failed"),
    ]
    assert found["error"]["node"] == "save"


def test_get_executions_of_a_workflow(client: Client) -> None:
    """Only its own."""
    run = client.record(workflow="of this one")
    client.record(workflow="of another one")
    assert [one["id"] for one in client.get("runs", workflow="of this one")["runs"]] == [run]


def test_delete_execution(client: Client) -> None:
    """One, by its id; it stays deleted, and late events do not bring it back."""
    client.record(workflow="unwanted", id="unwanted", status="running")
    assert client.get("runs/unwanted")["status"] == "running"
    assert client.http.delete("/api/v1/runs/unwanted").status_code == 204
    client.record(workflow="unwanted", id="unwanted", status="completed")
    assert client.get("runs", workflow="unwanted")["runs"] == []
    assert client.http.delete("/api/v1/runs/unwanted").status_code == 404


def test_clear_workflow_executions(client: Client) -> None:
    """All of one workflow, and none of another."""
    kept = client.record(workflow="kept")
    client.record(workflow="cleared")
    client.record(workflow="cleared", status="failed")
    assert client.get("runs", workflow="cleared")["total"]["value"] == 2
    answer = client.http.delete("/api/v1/runs", params={"workflow": "cleared"})
    assert answer.json() == {"deleted": 2}
    assert [run["id"] for run in client.get("runs", workflow="kept")["runs"]] == [kept]


def test_a_receiver_that_never_fails_the_workflow(
    redis_server: RedisServer, client: Client
) -> None:
    """It takes executions while PostgreSQL is away, and the SDK also while all of it is."""
    with run_api(redis_server.url, "postgresql://nobody@127.0.0.1:1/none") as lone:
        answer = lone.post("/api/v1/executions", json={"workflow": "received", "id": "received"})
        assert answer.status_code == 202
        client.note(answer.json()["position"])
    assert client.get("runs/received")["status"] == "completed"
    with Recorder("redis://127.0.0.1:1/0") as recorder, recorder.run("unheard") as run:
        run.outputs = {"done": True}


# The history of flow runs

FLOW = {
    "workflow": "flow",
    "project": "flows",
    "user": "ann",
    "session": "s-1",
    "inputs": {"question": "?"},
    "outputs": {"answer": "!"},
    "metadata": {"model": "m"},
    "trigger": "api",
    "tags": {"env": "prod"},
    "nodes": [{"node": "prompt"}, {"node": "answer", "parents": ["prompt"]}],
}


def test_flow_runs_with_all_that_belongs_to_them(client: Client) -> None:
    """User, session, inputs, outputs, error type, type of trigger, components, metadata."""
    run = client.record(**FLOW, id="flow-1", error={"type": "RateLimit", "message": "later"})
    found = client.get(f"runs/{run}")
    for name in ("workflow", "project", "user", "session", "inputs", "outputs", "metadata", "tags"):
        assert found[name] == FLOW[name]
    assert (found["trigger"]["type"], found["error"]["type"]) == ("api", "RateLimit")
    assert {node["node"]: node["status"] for node in found["nodes"]} == {
        "prompt": "completed",
        "answer": "completed",
    }
    for name, value in (
        ("user", "ann"),
        ("session", "s-1"),
        ("trigger", "api"),
        ("error_type", "RateLimit"),
        ("tag", "env:prod"),
    ):
        ids = [one["id"] for one in client.get("runs", project="flows", **{name: value})["runs"]]
        assert run in ids


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("pending", "queued"),
        ("queued", "queued"),
        ("running", "running"),
        ("completed", "completed"),
        ("failed", "failed"),
        ("cancelled", "cancelled"),
    ],
)
def test_every_status(client: Client, sent: str, shown: str) -> None:
    """Pending and cancelled ones too; one that had not ended becomes the same run when it has."""
    run = client.record(workflow="statuses", id=f"status-{sent}", status=sent)
    assert client.get(f"runs/{run}")["status"] == shown
    listed = client.get("runs", workflow="statuses", status=shown)["runs"]
    assert run in [one["id"] for one in listed]
    if sent in ("pending", "queued", "running"):
        client.record(workflow="statuses", id=run, status="completed")
        assert client.get(f"runs/{run}")["status"] == "completed"


def test_list_and_stats_of_flow_runs(client: Client) -> None:
    """By user and session, and their figures."""
    for number in range(3):
        client.record(**{**FLOW, "user": "bob", "project": "figures"}, duration_ms=number * 1000)
    assert client.get("runs", user="bob", session="s-1")["total"]["value"] == 3
    stats = client.get("stats", project="figures", workflow="flow", bucket="day")
    assert (stats["total"], stats["duration_ms"]["avg"]) == (3, 1000)
    assert sum(bucket["total"] for bucket in stats["buckets"]) == 3


def test_bulk_delete_of_flow_runs(client: Client) -> None:
    """By whatever they are listed by: a session here."""
    for session in ("bulk", "bulk", "other"):
        client.record(**{**FLOW, "session": session, "project": "bulk"})
    query = {"session": "bulk", "project": "bulk", "tag": "env:prod"}
    assert client.get("runs", **query)["total"]["value"] == 2
    assert client.http.delete("/api/v1/runs", params=query).json() == {"deleted": 2}
    assert client.get("runs", project="bulk")["total"]["value"] == 1


def test_migrations_up_and_down(database_url: str) -> None:
    """There and back, with nothing left behind."""
    assert migrate(database_url) == head()
    assert migrate(database_url, "base") is None
    with connect(database_url) as connection:
        left = tables_in(connection)
    assert left <= {"alembic_version"}
    assert migrate(database_url) == head()


def tables_in(connection: psycopg.Connection) -> set[str]:
    """The names of all tables."""
    rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {name for (name,) in rows}

"""The same secrets through every way in: no way out shows one, and harmless neighbours stay."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis

from conditions import is_folded, run_in_thread, wait_until
from runfold import Recorder, Started, Trigger
from runfold.protocol.streams import shard_of, stream_key
from runfold_workers.consumer.worker import Worker, WorkerSettings
from service_threads import run_api
from stream_frames import add_frame

SHARDS = 8
RUNFOLD = Path(sys.executable).with_name("runfold")
SECRET = "hunter2-7f3a"
KEYS = {"RUNFOLD_REDACT_KEYS": "iban"}
HARMLESS = {"input_tokens": 11, "max_tokens": 4096, "token_count": 5, "author": "ann-of-green"}


def secrets() -> dict[str, Any]:
    """Under built-in keys, under one that was added, at any depth; numbers and objects too."""
    return {
        "password": SECRET,
        "deep": [{"X-Api-Key": SECRET, "db": {"dbPassword": SECRET, "host": "db-7.example"}}],
        "iban": SECRET,
        "credentials": {"user": SECRET, "list": [SECRET]},
        "session_token": {"value": SECRET},
        **HARMLESS,
    }


def event(run: str, **further: Any) -> dict[str, Any]:
    return {
        "type": "started",
        "run": run,
        "at": datetime.now(UTC).isoformat(),
        "workflow": "w",
        "user": "ann",
        "tags": {"api_key": SECRET, "team": "blue"},
        "trigger": {"type": "webhook", "data": secrets()},
        "inputs": secrets(),
        "metadata": secrets(),
        **further,
    }


def end(run: str) -> dict[str, Any]:
    at = datetime.now(UTC).isoformat()
    usage = {"input_tokens": 3, "api_key": SECRET}
    return {"type": "completed", "run": run, "at": at, "outputs": secrets(), "usage": usage}


@pytest.fixture
def api(redis_url: str, migrated_url: str) -> Iterator[httpx.Client]:
    worker = Worker(WorkerSettings(redis_url, migrated_url, SHARDS, redact_keys=("iban",)))
    with run_in_thread(worker), run_api(redis_url, migrated_url, redact_keys=("iban",)) as client:
        yield client


def by_events(api: httpx.Client, redis_url: str, tmp_path: Path) -> None:
    """One, an array, lines; also fields that the contract does not know."""
    for body, kind in (
        (json.dumps(event("one", secret=SECRET, extra=secrets())), "json"),
        (json.dumps([event("many"), end("many")]), "json"),
        ("\n".join(map(json.dumps, [event("lines"), end("lines")])), "x-ndjson"),
    ):
        headers = {"content-type": f"application/{kind}"}
        answer = api.post("/api/v1/events", content=body, headers=headers)
        assert answer.status_code == 202, answer.text


def by_execution(api: httpx.Client, redis_url: str, tmp_path: Path) -> None:
    further = {name: value for name, value in event("x").items() if name not in ("type", "at")}
    nodes = [{"node": "n", "inputs": secrets(), "outputs": secrets()}]
    execution = further | {"run": None, "outputs": secrets(), "nodes": nodes}
    del execution["run"]
    assert api.post("/api/v1/executions", json=execution).status_code == 202


def by_recorder(api: httpx.Client, redis_url: str, tmp_path: Path) -> None:
    with Recorder(redis_url, redact_keys=["iban"], spool_dir=str(tmp_path)) as recorder:
        with recorder.run("w", inputs=secrets(), tags={"api_key": SECRET}) as run:
            run.outputs = secrets()
        recorder.record("w", started_at=datetime.now(UTC), inputs=secrets(), metadata=secrets())
        data = recorder.payload(secrets())
        recorder.emit(Started(run="emitted", trigger=Trigger(type="t", data=data), inputs=data))


def by_emit(api: httpx.Client, redis_url: str, tmp_path: Path) -> None:
    lines = "\n".join(map(json.dumps, [event("cli"), end("cli")]))
    environ = os.environ | KEYS | {"RUNFOLD_REDIS_URL": redis_url}
    subprocess.run([RUNFOLD, "emit"], input=lines, text=True, env=environ, check=True)


def by_exec(api: httpx.Client, redis_url: str, tmp_path: Path) -> None:
    environ = os.environ | KEYS | {"RUNFOLD_REDIS_URL": redis_url}
    command = [str(RUNFOLD), "exec", "--", "true", f"--password={SECRET}", "--iban", SECRET]
    subprocess.run(command, env=environ, check=True)


def by_import(api: httpx.Client, redis_url: str, tmp_path: Path) -> None:
    """Secrets of a trace stand in the command lines of its tasks."""
    arguments = [f"--password={SECRET}", "--iban", SECRET, f"https://ann:{SECRET}@h.example/"]
    command = {"program": "load", "arguments": arguments}
    task = {"id": "a", "name": "a", "parents": [], "children": []}
    instance = {
        "name": "w",
        "schemaVersion": "1.5",
        "workflow": {
            "specification": {"tasks": [task], "files": []},
            "execution": {
                "makespanInSeconds": 1,
                "executedAt": "2026-01-01T00:00:00Z",
                "tasks": [{"id": "a", "runtimeInSeconds": 1, "command": command}],
                "machines": [],
            },
        },
    }
    path = tmp_path / "instance.json"
    path.write_text(json.dumps(instance))
    environ = os.environ | KEYS | {"RUNFOLD_REDIS_URL": redis_url}
    subprocess.run(
        [RUNFOLD, "import", "--format", "wfformat", "--no-wait", path], env=environ, check=True
    )


def by_hand(api: httpx.Client, redis_url: str, tmp_path: Path) -> None:
    """Frames of JSON: the plain ones, and those that are looked at one by one."""
    with redis.Redis.from_url(redis_url) as client:
        for run, events in {
            "plain": [event("plain", id=0), end("plain") | {"id": 1}],
            "without an id": [event("without an id", secret=SECRET)],
            "beside a broken one": [
                event("beside a broken one", id=0),
                {"type": "no such type", **secrets()},
                event("beside a broken one", id=2, at="0001-01-01T00:00:00Z"),
            ],
        }.items():
            fields = {b"events": json.dumps(events).encode()}
            add_frame(client, shard_of(run, SHARDS), fields)
        torn = '[{"type": "started", "password": "' + SECRET
        client.xadd(stream_key(0), {"events": torn})
        client.xadd(stream_key(0), {"events": '"password": "' + SECRET})


WAYS_IN = [by_events, by_execution, by_recorder, by_emit, by_exec, by_import, by_hand]


@pytest.mark.parametrize("way_in", WAYS_IN, ids=lambda way: way.__name__)
def test_no_way_out_shows_what_came_in_under_a_sensitive_key(
    way_in: Any,
    api: httpx.Client,
    client: redis.Redis,
    database: psycopg.Connection,
    redis_url: str,
    tmp_path: Path,
) -> None:
    """Lists, details, events, exports, the tables and the dead letters."""
    wait_until(lambda: api.get("/api/v1/runs").json()["watermark"]["position"], what="shards")
    way_in(api, redis_url, tmp_path)
    wait_until(lambda: is_folded(client, database), what="the fold")
    runs = [run["id"] for run in api.get("/api/v1/runs").json()["runs"]]
    assert runs
    shown = [api.get("/api/v1/runs").text, api.get("/api/v1/export?format=ndjson&nodes=true").text]
    for run in runs:
        path = "/api/v1/runs/" + run.replace(" ", "%20")
        shown += [api.get(path).text, api.get(f"{path}/events").text]
    for table in ("ledger", "runs", "nodes", "dead_letters", "changes"):
        rows = database.execute(f"SELECT t::text FROM {table} AS t").fetchall()
        shown += [text for (text,) in rows]
    for (raw,) in database.execute("SELECT raw FROM dead_letters").fetchall():
        shown.append(bytes(raw).decode())
    leaks = [text for text in shown if SECRET in text]
    assert leaks == []
    assert any("[redacted]" in text for text in shown)
    if way_in not in (by_exec, by_import):
        everything = "".join(shown)
        for name, value in HARMLESS.items():
            assert f'"{name}":{json.dumps(value)}' in everything.replace('": ', '":')
        assert "db-7.example" in everything


def test_a_retry_after_a_change_of_the_keys_is_a_duplicate(
    redis_url: str, migrated_url: str, client: redis.Redis, database: psycopg.Connection
) -> None:
    """The id of an event without one follows from what was sent, and not from what is masked."""
    sent = event("again")
    with run_in_thread(Worker(WorkerSettings(redis_url, migrated_url, SHARDS))):
        for keys in ((), ("iban",), ("-*",)):
            with run_api(redis_url, migrated_url, redact_keys=keys) as api:
                assert api.post("/api/v1/events", json=sent).status_code == 202
        wait_until(lambda: is_folded(client, database), what="the fold")
    assert database.execute("SELECT count(*)::int FROM events").fetchone() == (1,)


def test_names_of_the_contract_are_no_keys(
    redis_url: str, migrated_url: str, client: redis.Redis, database: psycopg.Connection
) -> None:
    """A key `user` masks what payloads have under it, not the run's own user."""
    keys = ("user", "type", "message", "workflow")
    with (
        run_in_thread(Worker(WorkerSettings(redis_url, migrated_url, SHARDS))),
        run_api(redis_url, migrated_url, redact_keys=keys) as api,
    ):
        sent = [
            event("named", inputs={"user": SECRET, "n": 123456789012345678901234567890}),
            {
                "type": "failed",
                "run": "named",
                "at": datetime.now(UTC).isoformat(),
                "error": {"type": "Timeout", "message": "30 s"},
            },
        ]
        assert api.post("/api/v1/events", json=sent).status_code == 202
        wait_until(lambda: is_folded(client, database), what="the fold")
        answer = api.get("/api/v1/runs/named")
    run = answer.json()
    assert (run["user"], run["error"]["type"], run["error"]["message"]) == (
        *("ann", "Timeout"),
        "30 s",
    )
    assert run["inputs"]["user"] == "[redacted]"
    assert "123456789012345678901234567890" in answer.text

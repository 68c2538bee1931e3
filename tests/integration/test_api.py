"""The REST API: a real server and worker over real Redis and PostgreSQL."""

import itertools
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import redis

from conditions import wait_until
from conftest import MakePostgres, MakeRedis
from databases import create_database
from folded_events import START, fold_events, make_event, make_run_events
from runfold.protocol.frames import decode_frame
from runfold_storage.migrate import migrate
from runfold_storage.tables import RUN_STATUSES
from service_threads import run_api, run_worker
from stream_frames import read_frames

NOWHERE = "redis://127.0.0.1:1/0"
NO_DATABASE = "postgresql://nobody@127.0.0.1:1/none"
NDJSON = {"content-type": "application/x-ndjson"}


@pytest.fixture
def api(redis_url: str, migrated_url: str) -> Iterator[httpx.Client]:
    """A server over an empty, migrated database."""
    with run_api(redis_url, migrated_url) as client:
        yield client


@pytest.fixture(scope="module")
def lone_api() -> Iterator[httpx.Client]:
    """A server without Redis and PostgreSQL, for requests that need neither."""
    with run_api(NOWHERE, NO_DATABASE) as client:
        yield client


def problem(response: httpx.Response, status: int, name: str) -> dict[str, Any]:
    """Check that a response is a complete problem of this type, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["type"] == f"urn:runfold:problem:{name}"
    assert found["status"] == status
    assert found["title"]
    assert found["detail"]
    assert found["instance"] == response.request.url.raw_path.decode().partition("?")[0]
    return found


def folded_events(redis_url: str) -> list[Any]:
    """All envelopes in all streams."""
    with redis.Redis.from_url(redis_url) as client:
        entries = [
            fields
            for key in sorted(client.keys("runfold:{*}:events"))
            for _, fields in read_frames(client, key)
        ]
    return [envelope for fields in entries for envelope, _ in decode_frame(fields).events]


def test_posted_events_can_be_read(api: httpx.Client, redis_url: str, migrated_url: str) -> None:
    """Posted events are folded and can be read as a list, a run, events and statistics."""
    run = "café/2026-11-20 #1?"
    events = [
        make_event("started", run, 0, workflow="w", project="acme", inputs={"x": [1, 2]}),
        make_event("node_started", run, 1, node="n", inputs={"in": True}),
        make_event("logged", run, 1.5, node="n", text="hello"),
        make_event("node_finished", run, 2, node="n", outputs=7),
        make_event("completed", run, 3, outputs={"done": True}),
    ]
    answer = api.post("/api/v1/events", json=events)
    assert answer.status_code == 202
    assert answer.json()["accepted"] == 5
    query = {"project": "acme", "wait_for": answer.json()["wait_for"]}
    with run_worker(redis_url, migrated_url):
        page = api.get("/api/v1/runs", params=query).json()
    ((shard, position),) = answer.json()["position"].items()
    assert page["watermark"]["position"][shard] == position
    assert set(page) == {"runs", "next_cursor", "prev_cursor", "total", "watermark"}
    assert page["total"] == {"value": 1, "relation": "exact"}
    assert [(one["id"], one["status"], one["duration_ms"]) for one in page["runs"]] == [
        (run, "completed", 3000)
    ]
    assert "inputs" not in page["runs"][0]
    path = f"/api/v1/runs/{quote(run, safe='')}"
    detail = api.get(path).json()
    assert detail["inputs"] == {"x": [1, 2]}
    assert detail["outputs"] == {"done": True}
    assert [(node["node"], node["outputs"]) for node in detail["nodes"]] == [("n", 7)]
    assert detail["started_at"] == "2026-11-20T10:00:00Z"
    ledger = api.get(f"{path}/events").json()
    assert [item["type"] for item in ledger["events"]] == [item["type"] for item in events]
    assert api.get("/api/v1/stats", params={"workflow": "w"}).json()["completed"] == 1
    (workflow,) = api.get("/api/v1/workflows").json()["workflows"]
    assert (workflow["workflow"], workflow["project"]) == ("w", "acme")


def test_any_run_id_has_a_path(api: httpx.Client, migrated_url: str) -> None:
    """Any encoded id leads to its run and its events."""
    runs = ["a/b", "/a", "a/", "a//b", "ä", "?", "#", "%", "%2F", "a%2Fb", "a b", "+", "日本"]
    runs += ["a.b", "events", "x/events", "...", "a\nb", '"', "'; --", "live", "a:b@c,d;e=f&g"]
    fold_events(migrated_url, itertools.chain(*(make_run_events(run, 0) for run in runs)))
    for run in runs:
        path = f"/api/v1/runs/{quote(run, safe='')}"
        assert api.get(path).json()["id"] == run
        events = api.get(f"{path}/events").json()["events"]
        assert [item["run"] for item in events] == [run, run]


def test_slashes_need_not_be_encoded(api: httpx.Client, migrated_url: str) -> None:
    """A plain slash belongs to the id; a trailing slash does not."""
    fold_events(migrated_url, make_run_events("a/b", 0))
    for path in ("a/b", "a/b/", "a%2Fb/"):
        assert api.get(f"/api/v1/runs/{path}").json()["id"] == "a/b"
    assert len(api.get("/api/v1/runs/a/b/events").json()["events"]) == 2


def test_unknown_run(api: httpx.Client) -> None:
    """A run that does not exist is a 404 that names it."""
    for path in ("x", "x/events", "%FF", "%00", "a" * 300, "a%2Fb/events"):
        found = problem(api.get(f"/api/v1/runs/{path}"), 404, "run-unknown")
        assert found["detail"].startswith("there is no run ")


def test_pages(api: httpx.Client, migrated_url: str) -> None:
    """The cursor of a page leads to the next page."""
    fold_events(migrated_url, [item for n in range(5) for item in make_run_events(f"r{n}", n)])
    first = api.get("/api/v1/runs", params={"limit": 3}).json()
    rest = api.get("/api/v1/runs", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [run["id"] for run in first["runs"] + rest["runs"]] == ["r4", "r3", "r2", "r1", "r0"]
    assert rest["next_cursor"] is None


def test_filters(api: httpx.Client, migrated_url: str) -> None:
    """Statuses may be repeated or separated by commas; times may have any offset."""
    fold_events(
        migrated_url,
        make_run_events("a", 0)
        + make_run_events("b", 60, end="failed")
        + make_run_events("c", 120, end="cancelled"),
    )

    def found(query: str) -> list[str]:
        return [run["id"] for run in api.get(f"/api/v1/runs?{query}").json()["runs"]]

    assert found("status=failed&status=cancelled") == ["c", "b"]
    assert found("status=failed,cancelled") == ["c", "b"]
    assert found("started_after=2026-11-20T10:01:00Z") == ["c", "b"]
    assert found("started_after=2026-11-20T12:01:00%2B02:00") == ["c", "b"]
    assert found("started_after=2026-11-20T12:01:00+02:00") == ["c", "b"]
    assert found("started_before=2026-11-20T10:01:00Z") == ["a"]
    assert found("started_after=2026-11-21") == []


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("runs?limit=0", "limit"),
        ("runs?limit=501", "limit"),
        ("runs?limit=ten", "limit"),
        ("runs?limit=", "limit"),
        ("runs?limit=99999999999999999999999", "limit"),
        ("runs?offset=-1", "offset"),
        ("runs?offset=10001", "offset"),
        ("runs?cursor=x", "cursor"),
        ("runs?cursor=", "cursor"),
        ("runs?cursor=%00%F0", "cursor"),
        ("runs?status=done", "status"),
        ("runs?status=", "status"),
        ("runs?project=", "project"),
        ("runs?project=%00", "project"),
        ("runs?workflow=" + "x" * 201, "workflow"),
        ("runs?started_after=yesterday", "started_after"),
        ("runs?started_before=2026-11-20T10:00:00", "started_before"),
        ("runs?started_before=9999-12-31T23:59:59-10:00", "started_before"),
        ("runs?started_after=2026-01-02&started_before=2026-01-01", "started_before"),
        ("runs?limit=1&limit=2", "limit"),
        ("stats?bucket=minute", "bucket"),
        ("stats?group_by=user", "group_by"),
        ("stats?since=x", "since"),
        ("stats?since=2026-01-02&until=2026-01-01", "until"),
        ("runs?limit=1e2", "limit"),
        ("runs?offset=1.0", "offset"),
        ("workflows?cursor=e30", "cursor"),
        ("workflows?limit=501", "limit"),
        ("runs/a/events?types=nonsense", "types"),
        ("runs/a/events?after=x", "after"),
        ("runs/a/events?before=x", "before"),
        ("runs/a/events?tail=2", "tail"),
        ("runs/a/events?limit=1001", "limit"),
    ],
)
def test_bad_parameters(lone_api: httpx.Client, query: str, parameter: str) -> None:
    """The problem names the invalid parameter."""
    found = problem(lone_api.get(f"/api/v1/{query}"), 400, "bad-parameter")
    assert found["parameter"] == parameter
    assert found["detail"].startswith(f"{parameter}: ")


def test_unknown_parameter(lone_api: httpx.Client) -> None:
    """A misspelt filter is an error that lists those that exist, not a wrong answer."""
    found = problem(lone_api.get("/api/v1/runs?worfklow=x"), 400, "unknown-parameter")
    assert found["parameter"] == "worfklow"
    assert "workflow" in found["allowed"]
    assert "history" not in found["allowed"]
    problem(lone_api.get("/api/v1/runs/x?history=1"), 400, "unknown-parameter")
    problem(lone_api.post("/api/v1/events?x=1", json=[]), 400, "unknown-parameter")


@pytest.mark.parametrize(
    "path", ["/nope", "/page/", "/api/v1", "/api/v1/", "/api/v1/run", "/api", "/api/openapi.json/x"]
)
def test_nothing_there(lone_api: httpx.Client, path: str) -> None:
    """A path that does not exist is a problem like any other."""
    problem(lone_api.get(path), 404, "not-found")


def test_the_last_hour_of_the_calendar(api: httpx.Client) -> None:
    """ "Until the end of time" is a period like any other."""
    assert api.get("/api/v1/stats?until=9999-12-31T23:59:59Z").json()["total"] == 0


def test_head(api: httpx.Client, migrated_url: str) -> None:
    """Every readable route answers HEAD."""
    fold_events(migrated_url, make_run_events("a", 0))
    for path in ("runs", "runs/a", "runs/a/events", "stats", "workflows"):
        answer = api.head(f"/api/v1/{path}")
        assert (answer.status_code, answer.content) == (200, b"")
    assert api.head("/api/v1/runs/none").status_code == 404


def test_a_database_without_tables_is_reported(redis_url: str, database_url: str) -> None:
    """The problem names the command to run, and shows no SQL."""
    with run_api(redis_url, database_url) as api:
        detail = problem(api.get("/api/v1/runs"), 503, "schema-outdated")["detail"]
    assert "runfold migrate" in detail
    assert "SELECT" not in detail


def test_wrong_method(lone_api: httpx.Client) -> None:
    """The problem lists the methods that the path has."""
    answer = lone_api.delete("/api/v1/stats")
    problem(answer, 405, "method-not-allowed")
    assert "GET" in answer.headers["allow"]


def test_waiting_in_vain(redis_url: str, migrated_url: str) -> None:
    """Without a worker the wait ends with a problem that names the shard."""
    fold_events(migrated_url, make_run_events("a", 0))
    with run_api(redis_url, migrated_url, max_wait_s=0.05) as api:
        check_waiting_in_vain(api)


def check_waiting_in_vain(api: httpx.Client) -> None:
    """Ask for positions that are never reached, that all have, and that are none."""
    for position in ("3:9999999999999-0", '{"3": "9999999999999-0"}', "99:1-1"):
        answer = api.get("/api/v1/runs/a", params={"wait_for": position})
        assert "shard" in problem(answer, 503, "fold-behind")["detail"]
    for position in ("", "0:0-0", '{"0": "0-0"}'):
        assert api.get("/api/v1/stats", params={"wait_for": position}).status_code == 200
    for position in ("3", "a:1-1", "1:x", "[1]", "{", "1:1-1;2:2-2", "null"):
        answer = api.get("/api/v1/workflows", params={"wait_for": position})
        assert problem(answer, 400, "bad-parameter")["parameter"] == "wait_for"


def test_injections(api: httpx.Client, migrated_url: str) -> None:
    """SQL in a parameter matches nothing or is a bad parameter, and never causes a 500."""
    fold_events(migrated_url, make_run_events("a", 0))
    texts = ["' OR 1=1 --", "%", "\\", "%(x)s", '"; DROP TABLE runs; --']
    routes = {
        "runs": "project workflow status trigger user session tag started_after started_before "
        "min_duration_ms max_duration_ms min_cost_usd max_cost_usd error_type fingerprint "
        "parent_run limit cursor offset "
        "wait_for",
        "stats": "project workflow since until bucket group_by tz",
        "workflows": "project limit cursor",
        "failures": "project workflow since until limit",
        "runs/a/events": "types node limit after before tail",
    }
    for path, names in routes.items():
        for name, text in itertools.product(names.split(), texts):
            answer = api.get(f"/api/v1/{path}", params={name: text})
            assert answer.status_code in (200, 400), answer.text
    assert len(api.get("/api/v1/runs").json()["runs"]) == 1


def test_odd_query_strings(api: httpx.Client) -> None:
    """A malformed query string never causes a 500."""
    for query in (b"%FF=%FE", b"&&&==&", b"a;b;c", b"project=%ED%A0%80", b"=", b"x" * 30_000):
        url = api.base_url.copy_with(raw_path=b"/api/v1/runs?" + query)
        assert api.get(url).status_code in (200, 400)


def test_lines_and_single_events(api: httpx.Client, redis_url: str) -> None:
    """A single object and NDJSON are accepted like an array."""
    one = make_event("started", "a", 0)
    assert api.post("/api/v1/events", json=one).json()["accepted"] == 1
    lines = (
        "\n".join(json.dumps(make_event("logged", f"r{n}", n, text="x")) for n in range(3)) + "\n"
    )
    assert api.post("/api/v1/events", content=lines, headers=NDJSON).json()["accepted"] == 3
    assert sorted(envelope.run for envelope in folded_events(redis_url)) == ["a", "r0", "r1", "r2"]


def test_events_of_many_shards(api: httpx.Client, redis_url: str) -> None:
    """A large batch reaches every shard; the events of each run keep their order."""
    runs = [f"run-{n}" for n in range(50)]
    events = [make_event("logged", run, n, text=str(n)) for n in range(200) for run in runs]
    answer = api.post("/api/v1/events", json=events).json()
    assert answer["accepted"] == 10_000
    assert set(answer["position"]) == {str(shard) for shard in range(8)}
    by_run: dict[str, list[int]] = {}
    for envelope in folded_events(redis_url):
        by_run.setdefault(envelope.run, []).append(envelope.at_us)
    assert len(by_run) == 50
    assert all(len(times) == 200 and times == sorted(times) for times in by_run.values())


def test_repeated_requests_are_duplicates(
    api: httpx.Client, redis_url: str, migrated_url: str
) -> None:
    """A repeated request without event ids changes nothing."""
    events = [
        make_event("started", "a", 0),
        make_event("logged", "a", 1, text="x"),
        make_event("failed", "a", 2),
    ]
    for _ in range(3):
        assert api.post("/api/v1/events", json=events).status_code == 202
    assert len({(e.run, e.id) for e in folded_events(redis_url)}) == 3
    with run_worker(redis_url, migrated_url):
        failed = {"status": "failed"}
        wait_until(lambda: api.get("/api/v1/runs", params=failed).json()["runs"], what="the fold")
    assert len(api.get("/api/v1/runs/a/events").json()["events"]) == 3
    assert api.get("/api/v1/stats").json()["total"] == 1


def test_broken_events_are_named(api: httpx.Client, redis_url: str) -> None:
    """One broken event refuses the request, and the problem lists every broken event."""
    events = [
        make_event("started", "a", 0),
        {"type": "started", "run": "b"},
        make_event("stopped", "c", 0),
    ]
    found = problem(api.post("/api/v1/events", json=events), 400, "broken-events")
    assert "nothing was accepted" in found["detail"]
    assert [(one["index"], one["field"]) for one in found["events"]] == [(1, "at"), (2, "type")]
    assert folded_events(redis_url) == []


def test_bodies_that_are_no_events(lone_api: httpx.Client) -> None:
    """A body that is not JSON or has no events is refused with the reason."""
    headers = {"content-type": "application/json"}
    problem(lone_api.post("/api/v1/events", content=b"[1,", headers=headers), 400, "not-json")
    problem(lone_api.post("/api/v1/events", content=b"", headers=headers), 400, "no-events")
    problem(lone_api.post("/api/v1/events", content=b"7", headers=headers), 400, "broken-events")


@pytest.mark.parametrize("media_type", [None, "text/plain", "multipart/form-data", "nonsense"])
def test_media_types(api: httpx.Client, media_type: str | None) -> None:
    """Only media types that pages of other sites cannot send without a preflight are accepted."""
    headers = {} if media_type is None else {"content-type": media_type}
    body = json.dumps(make_event("started", "a", 0)).encode()
    found = api.post("/api/v1/events", content=body, headers=headers)
    assert "application/json" in problem(found, 415, "unsupported-media-type")["allowed"]
    headers = {"content-type": "application/json; charset=utf-8"}
    assert api.post("/api/v1/events", content=body, headers=headers).status_code == 202
    headers["content-encoding"] = "gzip"
    problem(api.post("/api/v1/events", content=body, headers=headers), 415, "unsupported-encoding")


def test_sizes(redis_url: str, database_url: str) -> None:
    """Too large bodies are refused, with or without a length; so are events that cannot be cut."""
    with run_api(redis_url, database_url, max_body_bytes=2_000_000) as api:
        big = json.dumps(make_event("logged", "a", 0, text="x" * 2_000_000)).encode()
        headers = {"content-type": "application/json"}
        problem(api.post("/api/v1/events", content=big, headers=headers), 413, "too-large")
        streamed = (big[start : start + 65_536] for start in range(0, len(big), 65_536))
        problem(api.post("/api/v1/events", content=streamed, headers=headers), 413, "too-large")
        long = json.dumps(make_event("logged", "a", 0, text="x" * 1_100_000)).encode()
        assert api.post("/api/v1/events", content=long, headers=headers).status_code == 202
        large = json.dumps(make_event("logged", "a", 0, text="x", numbers=[0] * 600_000)).encode()
        found = api.post("/api/v1/events", content=large, headers=headers)
        assert "too large" in problem(found, 400, "broken-events")["events"][0]["reason"]


def test_redis_away(migrated_url: str) -> None:
    """Without Redis, writes get a 503 with Retry-After, and reads still work."""
    fold_events(migrated_url, make_run_events("a", 0))
    with run_api(NOWHERE, migrated_url) as api:
        answer = api.post("/api/v1/events", json=make_event("started", "b", 0))
        found = problem(answer, 503, "redis-unreachable")
        assert "127.0.0.1" not in found["detail"]
        assert answer.headers["retry-after"] == "1"
        assert len(api.get("/api/v1/runs").json()["runs"]) == 1
        reason = problem(api.get("/readyz"), 503, "not-ready")["detail"]
        assert "Redis" in reason
        assert "\n" not in reason
        assert api.get("/healthz").json() == {"status": "live"}


def test_redis_restarts(make_redis: MakeRedis, database_url: str) -> None:
    """A write succeeds after a restart of Redis."""
    server = make_redis()
    with run_api(server.url, database_url) as api:
        assert api.post("/api/v1/events", json=make_event("started", "a", 0)).status_code == 202
        server.stop()
        problem(
            api.post("/api/v1/events", json=make_event("failed", "a", 1)), 503, "redis-unreachable"
        )
        server.start()
        assert api.post("/api/v1/events", json=make_event("failed", "a", 1)).status_code == 202


def test_redis_full(make_redis: MakeRedis, database_url: str) -> None:
    """A full Redis causes a 503, not a silent loss."""
    server = make_redis()
    with run_api(server.url, database_url) as api:
        assert api.post("/api/v1/events", json=make_event("started", "a", 0)).status_code == 202
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory", "1mb")
        answer = api.post("/api/v1/events", json=make_event("failed", "a", 1))
        problem(answer, 503, "redis-unreachable")
        assert "retry-after" in answer.headers


def test_shards_differ(redis_url: str, migrated_url: str) -> None:
    """A service configured with another number of shards refuses events with the reason."""
    with redis.Redis.from_url(redis_url) as client:
        client.set("runfold:shards", 4)
    with run_api(redis_url, migrated_url, shards=8) as api:
        answer = api.post("/api/v1/events", json=make_event("started", "a", 0))
        assert "RUNFOLD_SHARDS is 8" in problem(answer, 503, "shards-differ")["detail"]
        assert "RUNFOLD_SHARDS" in problem(api.get("/readyz"), 503, "not-ready")["detail"]


def test_postgresql_away(redis_url: str) -> None:
    """Without PostgreSQL, reads get a 503 that names no server, and writes still work."""
    with run_api(redis_url, NO_DATABASE) as api:
        for path in ("runs", "runs/a", "runs/a/events", "stats", "workflows"):
            answer = api.get(f"/api/v1/{path}")
            found = problem(answer, 503, "database-unreachable")
            assert "127.0.0.1" not in found["detail"]
            assert answer.headers["retry-after"] == "1"
        assert api.post("/api/v1/events", json=make_event("started", "a", 0)).status_code == 202
        assert "PostgreSQL" in problem(api.get("/readyz"), 503, "not-ready")["detail"]


def test_postgresql_restarts(make_postgres: MakePostgres, redis_url: str) -> None:
    """Reads work again as soon as PostgreSQL does."""
    server = make_postgres()
    url = create_database(server, "restarts")
    migrate(url)
    fold_events(url, make_run_events("a", 0))
    with run_api(redis_url, url) as api:
        assert api.get("/readyz").json() == {"status": "ready"}
        server.stop("immediate")
        problem(api.get("/api/v1/runs"), 503, "database-unreachable")
        server.start()
        assert len(api.get("/api/v1/runs").json()["runs"]) == 1


def test_schema_missing(redis_url: str, database_url: str) -> None:
    """With an unmigrated database the service is not ready and names the command to run."""
    with run_api(redis_url, database_url) as api:
        assert "runfold migrate" in problem(api.get("/readyz"), 503, "not-ready")["detail"]
        problem(api.get("/api/v1/runs"), 503, "schema-outdated")


def test_reads_at_once(api: httpx.Client, migrated_url: str) -> None:
    """More concurrent requests than threads and connections are all answered."""
    fold_events(migrated_url, [item for n in range(60) for item in make_run_events(f"r{n}", n)])
    results: list[int] = []

    def read() -> None:
        with httpx.Client(base_url=api.base_url, timeout=60) as client:
            for _ in range(5):
                answer = client.get("/api/v1/runs")
                results.append(answer.status_code * 1000 + len(answer.json()["runs"]))

    threads = [threading.Thread(target=read) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [200_050] * 80


def test_a_run_can_be_deleted(api: httpx.Client, migrated_url: str) -> None:
    """204 once; then the run and its events are unknown."""
    fold_events(
        migrated_url,
        [*make_run_events("a/b", 0, workflow="w"), *make_run_events("c", 1, workflow="w")],
    )
    path = f"/api/v1/runs/{quote('a/b', safe='')}"
    answer = api.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    for answer in (api.delete(path), api.get(path), api.get(f"{path}/events")):
        problem(answer, 404, "run-unknown")
    assert api.get("/api/v1/stats").json()["total"] == 1


def test_runs_can_be_deleted_by_the_filters_of_the_list(
    api: httpx.Client, migrated_url: str
) -> None:
    """Exactly the listed runs are deleted, and all runs only with `all`."""
    fold_events(
        migrated_url, itertools.chain(*(make_run_events(f"r{n}", n, project="p") for n in range(5)))
    )
    fold_events(migrated_url, make_run_events("other", 9, end="failed", workflow="w", project="q"))
    runs = "/api/v1/runs"
    assert problem(api.delete(runs), 400, "bad-parameter")["parameter"] == "all"
    both = api.delete(runs, params={"all": "true", "project": "p"})
    assert problem(both, 400, "bad-parameter")["parameter"] == "all"
    unknown = problem(api.delete(runs, params={"projects": "p"}), 400, "unknown-parameter")
    assert {"project", "older_than_days", "all"} <= set(unknown["allowed"])
    for days in ("0", "x", "1e2", "36501"):
        wrong = problem(api.delete(runs, params={"older_than_days": days}), 400, "bad-parameter")
        assert wrong["parameter"] == "older_than_days"
    assert api.get(runs).json()["total"]["value"] == 6

    answer = api.delete(runs, params={"project": "p", "status": "completed"})
    assert (answer.status_code, answer.json()) == (200, {"deleted": 5})
    assert [run["id"] for run in api.get(runs).json()["runs"]] == ["other"]
    assert api.delete(runs, params={"workflow": "none"}).json() == {"deleted": 0}
    assert api.delete(runs, params={"all": "true"}).json() == {"deleted": 1}
    assert api.get(runs).json()["total"]["value"] == 0


def test_many_runs_are_deleted_by_a_job(redis_url: str, migrated_url: str) -> None:
    """202 with the location of the job."""
    fold_events(
        migrated_url, itertools.chain(*(make_run_events(f"r{n}", n, project="p") for n in range(5)))
    )
    with run_api(redis_url, migrated_url, delete_at_once=4) as api:
        answer = api.delete("/api/v1/runs", params={"project": "p"})
        assert answer.status_code == 202
        job = answer.json()
        assert (job["kind"], job["status"], job["arguments"]["runs"]) == ("delete", "queued", 5)
        assert api.get(answer.headers["location"]).json() == job
        assert api.get("/api/v1/jobs").json() == {"jobs": [job]}
        assert api.get("/api/v1/jobs", params={"status": "failed"}).json() == {"jobs": []}
        problem(api.get("/api/v1/jobs", params={"status": "x"}), 400, "bad-parameter")
        for unknown in ("x", "00000000-0000-0000-0000-000000000000"):
            problem(api.get(f"/api/v1/jobs/{unknown}"), 404, "job-unknown")


def test_openapi_document(lone_api: httpx.Client) -> None:
    """The document lists every route with its parameters and problems, and loads no scripts."""
    answer = lone_api.get("/api/openapi.json")
    document = answer.json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {
        "/api/v1/runs",
        "/api/v1/runs/{run}",
        "/api/v1/runs/{run}/events",
        "/api/v1/stats",
        "/api/v1/workflows",
        "/api/v1/failures",
        "/api/v1/events",
        "/api/v1/executions",
        "/api/v1/export",
        "/api/v1/live",
        "/api/v1/runs/{run}/live",
        "/api/v1/jobs",
        "/api/v1/jobs/{job}",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    listing = document["paths"]["/api/v1/runs"]["get"]
    assert {one["name"] for one in listing["parameters"]} == {
        "project",
        "workflow",
        "status",
        "trigger",
        "user",
        "session",
        "tag",
        "started_after",
        "started_before",
        "min_duration_ms",
        "max_duration_ms",
        "min_cost_usd",
        "max_cost_usd",
        "error_type",
        "fingerprint",
        "parent_run",
        "q",
        "payload",
        "limit",
        "cursor",
        "offset",
        "wait_for",
    }
    assert "application/problem+json" in listing["responses"]["400"]["content"]
    assert document["paths"]["/api/v1/events"]["post"]["requestBody"]["required"]
    assert "cdn" not in answer.text


def documented(text: str) -> dict[str, str]:
    """Return the rows of Markdown tables by the code names in their first cells."""
    rows = re.findall(r"^\| (`[^|]+`) \| (.*) \|$", text, re.MULTILINE)
    return {name: rest for names, rest in rows for name in re.findall(r"`([^`]+)`", names)}


def test_every_route_is_documented(lone_api: httpx.Client) -> None:
    """The tables of REST.md have each route with its parameters and their choices, and no more."""
    readme = (Path(__file__).parents[2] / "api" / "REST.md").read_text()
    rows = documented(readme.partition("## Routes")[2].partition("## Live streams")[0])
    routes = {name: row for name, row in rows.items() if " /" in name}
    filters = rows.keys() - routes.keys()
    paths = lone_api.get("/api/openapi.json").json()["paths"]
    operations = {
        f"{method.upper()} {path}": [
            each for each in operation.get("parameters", []) if each["in"] == "query"
        ]
        for path, item in paths.items()
        for method, operation in item.items()
        if method != "head"
    }
    assert routes.keys() - {"GET /api/openapi.json"} == operations.keys()
    listing = {each["name"] for each in operations["GET /api/v1/runs"]}
    assert filters == listing - {"limit", "cursor", "offset", "wait_for"}
    filtered = {name for name, taken in operations.items() if "q" in names_of(taken)}
    assert filtered == {name for name, row in routes.items() if "the filters" in row}
    for name, parameters in operations.items():
        for parameter in parameters:
            if parameter["name"] == "wait_for" or (
                name in filtered and parameter["name"] in filters
            ):
                continue
            assert f"`{parameter['name']}" in routes[name], (name, parameter["name"])
            for choice in parameter["schema"].get("enum", []):
                assert f"`{choice}`" in routes[name], (name, choice)
    assert all(f"`{status}`" in rows["status"] for status in RUN_STATUSES)


def names_of(parameters: list[dict[str, Any]]) -> set[str]:
    return {each["name"] for each in parameters}


def test_stats_bounds(api: httpx.Client, migrated_url: str) -> None:
    """The response has the effective bounds, widened to whole hours."""
    fold_events(migrated_url, make_run_events("a", 0))
    query = {"since": "2026-11-20T10:30:00Z", "until": "2026-11-20T10:45:00Z", "bucket": "hour"}
    stats = api.get("/api/v1/stats", params=query).json()
    assert (stats["since"], stats["until"]) == ("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z")
    assert stats["total"] == 1
    assert [one["start"] for one in stats["buckets"]] == [START.strftime("%Y-%m-%dT%H:%M:%SZ")]

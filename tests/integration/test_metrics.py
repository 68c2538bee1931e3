"""The metrics of the API and of a worker; incidents appear in all that show them."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import httpx
import psycopg
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from conditions import is_folded, run_fold_worker, run_in_thread, wait_until
from event_histories import NOON_US, to_fields
from oracle import Event, to_envelope
from runfold import Logged, Recorder
from runfold.protocol.streams import agree_on_shards, shard_of, stream_key
from runfold_stack.doctor.examination import examine
from runfold_stack.settings import Settings
from runfold_storage.checkpoints.incidents import Kind, raise_incident
from runfold_workers.consumer.worker import Worker, WorkerSettings
from runfold_workers.metrics import PHASES, SpoolCollector, serve_metrics
from service_threads import run_api
from stream_frames import add_frame

SHARDS = 2
READMES = [Path(__file__).parents[2] / folder / "README.md" for folder in ("workers", "api")]

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def client(client: redis.Redis) -> redis.Redis:
    agree_on_shards(client, SHARDS)
    return client


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: object) -> float:
    """One series; a KeyError that shows it if it is not there."""
    return found[name, frozenset((label, str(of)) for label, of in labels.items())]


def runs_on(shard: int, number: int) -> list[Event]:
    names = (f"run {n}" for n in range(1000))
    ours = [name for name in names if shard_of(name, SHARDS) == shard][:number]
    return [{"type": "started", "run": name, "id": 0, "at_us": NOON_US} for name in ours]


def send(client: redis.Redis, shard: int, *events: Event) -> None:
    add_frame(client, shard, to_fields(map(to_envelope, events), packed=False))


@pytest.fixture
def scrape() -> Iterator[Callable[[Worker], Samples]]:
    """What a worker serves."""
    stops: list[Callable[[], None]] = []

    def scrape(worker: Worker) -> Samples:
        url, stop = serve_metrics(worker.metrics, "127.0.0.1", 0)
        stops.append(stop)
        answer = httpx.get(url)
        assert answer.status_code == 200
        return samples(answer.text)

    yield scrape
    for stop in stops:
        stop()


def test_a_worker_counts_what_it_folds(
    client: redis.Redis,
    database: psycopg.Connection,
    redis_url: str,
    migrated_url: str,
    scrape: Callable[[Worker], Samples],
) -> None:
    """Events, frames and dead letters of each shard; duplicates are no events that were folded."""
    worker = Worker(WorkerSettings(redis_url, migrated_url))
    with run_in_thread(worker):
        for shard, number in ((0, 3), (1, 5)):
            send(client, shard, *runs_on(shard, number))
            wait_until(lambda: is_folded(client, database), what="the first frames")
            send(client, shard, *runs_on(shard, number))
        client.xadd(stream_key(1), {b"events": b"[1, 2]"})
        wait_until(lambda: is_folded(client, database), what="all frames")
        found = scrape(worker)

    for shard, events, frames, dead in ((0, 3, 2, None), (1, 5, 3, 2)):
        assert value(found, "runfold_worker_events_folded_total", shard=shard) == events
        assert value(found, "runfold_worker_frames_folded_total", shard=shard) == frames
        if dead:
            assert value(found, "runfold_worker_dead_letters_total", shard=shard) == dead
    assert value(found, "runfold_worker_runs_recalled_total", result="miss") == 8
    assert value(found, "runfold_worker_runs_recalled_total", result="hit") == 8
    batches = value(found, "runfold_worker_batch_events_count")
    assert batches >= 4
    assert value(found, "runfold_worker_batch_events_sum") == 8
    for phase in PHASES:
        assert value(found, "runfold_worker_phase_seconds_count", phase=phase) >= 1
        assert value(found, "runfold_worker_phase_seconds_sum", phase=phase) > 0
    assert value(found, "runfold_worker_phase_seconds_count", phase="write") == batches


def test_a_worker_tells_the_lag_of_its_shards(
    client: redis.Redis,
    database: psycopg.Connection,
    redis_url: str,
    migrated_url: str,
    scrape: Callable[[Worker], Samples],
) -> None:
    """In frames, in events as by the frames folded last, and in seconds; only while it has them."""
    worker = Worker(WorkerSettings(redis_url, migrated_url))
    with run_in_thread(worker):
        send(client, 0, *runs_on(0, 20))
        wait_until(lambda: is_folded(client, database), what="the first frame")
        with psycopg.connect(migrated_url) as other:
            other.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
            for n in range(1, 11):
                send(client, 0, *[event | {"id": n} for event in runs_on(0, 20)])

            def lags() -> tuple[float, float]:
                found = scrape(worker)
                shard = frozenset({("shard", "0")})
                return (
                    found.get(("runfold_worker_lag_frames", shard), -1),  # before the first look
                    found.get(("runfold_worker_lag_events", shard), -1),
                )

            wait_until(lambda: lags() == (10, 200), what="the lag")
            assert value(scrape(worker), "runfold_worker_lag_seconds", shard=0) > 0
        wait_until(lambda: lags()[0] == 0, what="no lag")
        assert value(scrape(worker), "runfold_worker_lag_seconds", shard=0) == 0
    assert not [name for name, _ in scrape(worker) if name.startswith("runfold_worker_lag")]


def test_a_worker_tells_the_spool_of_its_machine(
    tmp_path: Path, scrape: Callable[[Worker], Samples]
) -> None:
    """Events and bytes on disk, and the cap."""
    worker = Worker(WorkerSettings("redis://127.0.0.1:1/0", ""))
    worker.metrics.registry.register(SpoolCollector(tmp_path / "spool", 2**30))
    assert value(scrape(worker), "runfold_spool_events") == 0
    with Recorder(
        "redis://127.0.0.1:1/0", spool_dir=str(tmp_path / "spool"), heartbeat_s=0
    ) as recorder:
        for number in range(7):
            recorder.emit(Logged(run="spooled", id=number, text="x"))
        assert recorder.flush(0.1).spooled == 7
        found = scrape(worker)
    assert value(found, "runfold_spool_events") == 7
    assert value(found, "runfold_spool_max_bytes") == 2**30
    (segment,) = (tmp_path / "spool").iterdir()
    assert value(found, "runfold_spool_bytes") == segment.stat().st_size


def test_the_api_counts_requests_and_tells_the_lag(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """Requests by route and not by path; the lag also while no worker runs."""
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        wait_until(lambda: is_folded(client, database), what="a worker")
    for _ in range(3):
        send(client, 1, *runs_on(1, 1))
    with run_api(redis_url, migrated_url) as api:
        for path in ("runs/a", "runs/b", "runs", "nothing"):
            api.get(f"/api/v1/{path}")
        answer = api.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        found = samples(answer.text)

    requests = "runfold_api_requests_total"
    assert value(found, requests, method="GET", route="/api/v1/runs/{run}", status=404) == 2
    assert value(found, requests, method="GET", route="/api/v1/runs", status=200) == 1
    assert value(found, requests, method="GET", route="", status=404) == 1
    assert value(found, "runfold_api_request_seconds_count", route="/api/v1/runs/{run}") == 2
    assert value(found, "runfold_lag_frames", shard=0) == 0
    assert value(found, "runfold_lag_seconds", shard=0) == 0
    assert value(found, "runfold_lag_frames", shard=1) == 3
    assert value(found, "runfold_lag_seconds", shard=1) > 0
    assert value(found, "runfold_dead_letters") == 0
    for server in ("redis", "postgresql"):
        assert value(found, "runfold_server_up", server=server) == 1


def test_the_api_has_metrics_without_its_servers(redis_url: str) -> None:
    """A server that is away is a figure, not an error."""
    with run_api(redis_url, "postgresql://nobody@127.0.0.1:1/none") as api:
        found = samples(api.get("/metrics").text)
    assert value(found, "runfold_server_up", server="postgresql") == 0
    assert "runfold_lag_frames" not in {name for name, _ in found}


def test_incidents_show_everywhere(
    client: redis.Redis,
    database: psycopg.Connection,
    redis_url: str,
    migrated_url: str,
    tmp_path: Path,
) -> None:
    """In metrics, in `/readyz` and, with a remedy, by the doctor, until they are acknowledged."""
    with run_fold_worker(redis_url, migrated_url, SHARDS):
        wait_until(lambda: is_folded(client, database), what="a worker")
    kinds = get_args(Kind)
    for number, kind in enumerate(kinds, 10):
        raise_incident(database, kind, number, shard=1)
    settings = Settings(home=tmp_path, redis_url=redis_url, database_url=migrated_url)

    def doctor(*, acknowledge: bool = False) -> list[tuple[str, str]]:
        today = datetime.now(UTC).date()
        findings = examine(settings, today, acknowledge=acknowledge)
        return [(f.found, f.remedy) for f in findings if f.check == "incidents"]

    with run_api(redis_url, migrated_url) as api:
        ready = api.get("/readyz")
        assert ready.status_code == 200
        assert {(one["kind"], one["new"]) for one in ready.json()["incidents"]} == {
            (kind, number) for number, kind in enumerate(kinds, 10)
        }
        found = doctor(acknowledge=True)
        assert len(found) == len(kinds)
        assert all("runfold doctor --acknowledge" in remedy for _, remedy in found)
        assert sorted(int(text.split()[0]) for text, _ in found) == [*range(10, 10 + len(kinds))]
        assert all("(shard 1)" in text for text, _ in found)

        assert doctor() == [("no unacknowledged incidents", "")]
        assert api.get("/readyz").json() == {"status": "ready"}
        scraped = samples(api.get("/metrics").text)
        for number, kind in enumerate(kinds, 10):
            assert value(scraped, "runfold_incidents_total", kind=kind, shard=1) == number
            assert value(scraped, "runfold_incidents_new", kind=kind) == 0


def test_every_metric_and_incident_is_documented(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """In the README of the folder that serves it; incidents in that of storage."""
    worker = Worker(WorkerSettings(redis_url, migrated_url))
    worker.metrics.registry.register(SpoolCollector(Path("/nonexistent"), 2**30))
    raise_incident(database, "frames_lost")
    with run_api(redis_url, migrated_url) as api:
        api.get("/healthz")
        text = api.get("/metrics").text
    served = [{family.name for family in worker.metrics.registry.collect()}]
    families = {family.name for family in text_string_to_metric_families(text)}
    served.append({name for name in families if not name.endswith("_created")})
    for readme, names in zip(READMES, served, strict=True):
        documented = set(re.findall(r"^\| `(runfold_\w+)`", readme.read_text(), re.MULTILINE))
        assert {name.removesuffix("_total") for name in documented} == names
    storage = (READMES[0].parents[1] / "storage" / "README.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \| .* \| .* \|$", storage, re.MULTILINE)) >= set(
        get_args(Kind)
    )

"""Watchers while all servers die and come back: in the end they have what REST returns."""

import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from acceptance.cli_processes import RUNFOLD, environ
from acceptance.worker_processes import StartWorker
from conditions import wait_until
from frame_delivery import SHARDS, Sender, make_frames
from oracle import Event
from runfold.protocol.streams import agree_on_shards, connect
from runfold_stack.servers.postgres_server import PostgresServer
from runfold_stack.servers.redis_server import RedisServer
from runfold_stack.watch.sse_client import Disconnected, Received, follow
from runfold_storage.migrate import migrate

pytestmark = pytest.mark.slow

RUNS = 500
ENDS = ("completed", "failed", "cancelled")


class Api:
    """`runfold api`, on a port that it keeps."""

    def __init__(self, redis_url: str, database_url: str, log: Path) -> None:
        self._port = find_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._env = environ(RUNFOLD_REDIS_URL=redis_url, RUNFOLD_DATABASE_URL=database_url)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*RUNFOLD, "api", "--port", str(self._port)], env=self._env, stdout=log, stderr=log
            )
        wait_until(self._answers, what=f"the API:\n{self._log.read_text()}")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)

    def terminate(self) -> int:
        """Ask it to stop, as an operator does, and return the status with which it exits."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(300)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False


def find_port() -> int:
    """Return a free port that no other process gets while the API is down.

    The kernel hands out ports from 32768 on; other tests and every connection use those.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no free port")


class Page(threading.Thread):
    """What a client shows that reconnects with its last id whenever it is cut off."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._closed = threading.Event()
        self.runs: dict[str, Any] = {}
        self.cuts = 0
        self.snapshots = 0
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            for happening in follow(self._url, sleep=self._rest):
                if self._closed.is_set():
                    return
                if isinstance(happening, Disconnected):
                    self.cuts += 1
                elif isinstance(happening, Received):
                    self._apply(happening)
        except Exception as error:
            self.error = error

    def _rest(self, _: float) -> None:
        self._closed.wait(0.2)

    def close(self) -> None:
        """Reconnect no more; it ends once its connection does."""
        self._closed.set()

    def _apply(self, received: Received) -> None:
        data = msgspec.json.decode(received.data)
        if received.event == "snapshot":
            self.snapshots += 1
            self.runs = {run["id"]: run for run in data["runs"]}
        elif received.event == "changed":
            self.runs[data["id"]] = data
        elif received.event == "removed":
            self.runs.pop(data["id"], None)


@pytest.fixture
def open_page() -> Iterator[Callable[[str], Page]]:
    """Pages that end with the test."""
    made: list[Page] = []

    def make(url: str) -> Page:
        made.append(Page(url))
        return made[-1]

    yield make
    for page in made:
        page.close()
    for page in made:
        page.join(60)


@pytest.fixture
def api(tmp_path: Path, open_page: object) -> Iterator[Callable[[str, str], Api]]:
    """APIs that end with the test, before the pages, which wait for their answers."""
    made: list[Api] = []

    def make(redis_url: str, database_url: str) -> Api:
        made.append(Api(redis_url, database_url, tmp_path / "api.log"))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.kill()


def stories(rng: random.Random) -> list[Event]:
    """Runs that overlap, each to its end."""
    now_us = int(datetime.now(UTC).timestamp() * 1_000_000)
    waiting: list[list[Event]] = []
    events: list[Event] = []
    for number in range(RUNS):
        waiting.append(_story(f"run {number}", rng.choice(ENDS)))
        while len(waiting) > 20 or (number == RUNS - 1 and waiting):
            story = rng.choice(waiting)
            events.append(story.pop(0) | {"at_us": now_us + len(events)})
            if not story:
                waiting.remove(story)
    return events


def _story(run: str, end: str) -> list[Event]:
    parts: list[dict[str, Any]] = [
        {"type": "started", "workflow": "w", "tags": {"a": "b"}},
        {"type": "node_started", "node": "n"},
        {"type": "logged", "text": "a line", "node": "n"},
        {"type": "node_finished", "node": "n", "usage": {"cost_usd": 0.25}},
        {"type": end},
    ]
    return [{"run": run, "id": number, **part} for number, part in enumerate(parts)]


@contextmanager
def sending(redis_url: str, events: list[Event], pause_s: float) -> Iterator[Sender]:
    sender = Sender(redis_url, make_frames(events, size=4), pause_s=pause_s)
    sender.start()
    yield sender
    sender.finish()


def listed(url: str) -> dict[str, Any]:
    """Return what REST returns for all runs."""
    answer = httpx.get(f"{url}/api/v1/runs?limit=500", timeout=30)
    return {run["id"]: run for run in answer.json()["runs"]}


def test_watchers_know_in_the_end_what_rest_says(
    start_worker: StartWorker,
    make_redis: Callable[..., RedisServer],
    make_postgres: Callable[..., PostgresServer],
    api: Callable[[str, str], Api],
    open_page: Callable[[str], Page],
) -> None:
    """Worker, API, Redis and PostgreSQL are killed in turn while 500 runs go through."""
    rng = random.Random(30)
    cache, database = make_redis(), make_postgres()
    migrate(database.url)
    with connect(cache.url) as client:
        agree_on_shards(client, SHARDS)
    worker = start_worker(cache.url, database.url)
    service = api(cache.url, database.url)
    live = f"{service.url}/api/v1/live?limit=500"
    everything, running = open_page(live), open_page(f"{live}&status=running")
    wait_until(lambda: everything.snapshots and running.snapshots, what="the snapshots")

    def seen() -> int:
        return sum(run["status"] in ENDS for run in list(everything.runs.values()))

    deaths = ("worker", "api", "redis", "postgresql", "api", "worker")
    with sending(cache.url, stories(rng), pause_s=0.02) as sender:
        for turn, victim in enumerate(deaths, 1):
            before = seen()
            sender.allowed = sender.total * turn // len(deaths)  # so that each finds some left
            wait_until(lambda: seen() > before, what=f"progress before {victim} dies")  # noqa: B023
            time.sleep(rng.uniform(0, 0.3))
            match victim:
                case "worker":
                    worker.kill()
                    worker = start_worker(cache.url, database.url)
                case "api":
                    service.kill()
                    time.sleep(rng.uniform(0, 0.3))
                    service.start()
                case "redis":
                    cache.kill()
                    cache.start()
                case "postgresql":
                    database.kill()
                    database.start()
    wait_until(lambda: seen() == RUNS, what="all runs to end on the page")
    wait_until(lambda: not running.runs, what="no run to be left behind as running")
    assert (everything.error, running.error) == (None, None)
    assert everything.runs == listed(service.url)
    assert everything.cuts >= 2


def test_an_api_that_stops_ends_the_streams_of_its_watchers(
    start_worker: StartWorker,
    redis_url: str,
    migrated_url: str,
    api: Callable[[str, str], Api],
    open_page: Callable[[str], Page],
) -> None:
    """After SIGTERM the streams end and the process exits; the watchers go on with the next one."""
    with connect(redis_url) as client:
        agree_on_shards(client, SHARDS)
    start_worker(redis_url, migrated_url)
    service = api(redis_url, migrated_url)
    pages = [open_page(f"{service.url}/api/v1/live?limit=500") for _ in range(20)]
    wait_until(lambda: all(page.snapshots for page in pages), what="the snapshots")
    with sending(redis_url, stories(random.Random(31)), pause_s=0.005):
        wait_until(lambda: all(page.runs for page in pages), what="progress")
        assert service.terminate() == 0
        wait_until(lambda: all(page.cuts for page in pages), what="the end of the streams")
        service.start()

    def all_know() -> bool:
        expected = listed(service.url)
        return len(expected) == RUNS and all(page.runs == expected for page in pages)

    wait_until(all_know, what="every watcher to have what REST returns")
    assert [page.error for page in pages] == [None] * len(pages)
    assert [page.snapshots for page in pages] == [1] * len(pages), "it went on where it was"

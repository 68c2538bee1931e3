"""Many clients of one API process: each gets every change of its filter and no other."""

import asyncio
import threading
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psycopg

from conditions import wait_until
from posted_events import make_event_ago, post_events
from runfold_stack.watch.sse_client import Received, parse
from service_threads import run_api_and_worker

CLIENTS = 200
PROJECTS = 4
RUNS = 80


class Crowd:
    """Clients in one thread; `pages` has the runs that each of them shows."""

    def __init__(self, url: str, queries: list[str]) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self.pages: list[dict[str, str]] = [{} for _ in queries]
        self.snapshots = [0] * len(queries)
        self.failures: list[BaseException] = []
        self._queries = queries
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def __enter__(self) -> "Crowd":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._loop.close()

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        tasks = [asyncio.create_task(self._client(number)) for number in range(len(self._queries))]
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        self.failures = [
            each
            for each in ended
            if each is not None and not isinstance(each, asyncio.CancelledError)
        ]

    async def _client(self, number: int) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=1 << 20)
        request = f"GET /api/v1/live?{self._queries[number]} HTTP/1.0\r\nhost: x\r\n\r\n"
        writer.write(request.encode())
        block: list[bytes] = []
        try:
            while line := await reader.readline():
                block.append(line)
                if line == b"\r\n":
                    block = []  # the head of the answer
                elif line == b"\n":
                    for received in parse(iter(block)):
                        self._apply(number, received)
                    block = []
        finally:
            writer.close()
        raise ConnectionError("the stream has ended")

    def _apply(self, number: int, received: Received) -> None:
        if received.event == "snapshot":
            self.snapshots[number] += 1
            runs: list[dict[str, Any]] = msgspec.json.decode(received.data)["runs"]
            self.pages[number] = {run["id"]: run["status"] for run in runs}
        elif received.event == "changed":
            run = msgspec.json.decode(received.data)
            self.pages[number][run["id"]] = run["status"]


def test_each_of_many_clients_gets_every_change_of_its_filter(
    redis_url: str, migrated_url: str, database: psycopg.Connection
) -> None:
    """Two hundred clients with four filters get all their runs to the end, and no others."""
    queries = [f"limit=1&project=p{number % PROJECTS}" for number in range(CLIENTS)]
    with run_api_and_worker(redis_url, migrated_url) as api:
        with Crowd(str(api.base_url), queries) as crowd:
            wait_until(lambda: all(crowd.snapshots), what="the snapshots")
            runs = [(f"run {number}", f"p{number % PROJECTS}") for number in range(RUNS)]
            for first in range(0, RUNS, 20):
                some = runs[first : first + 20]
                post_events(
                    api,
                    *(
                        make_event_ago("started", run, 2, workflow="w", project=p)
                        for run, p in some
                    ),
                )
                post_events(api, *(make_event_ago("completed", run, 1) for run, _ in some))
            expected = [
                {run: "completed" for run, project in runs if project == f"p{number}"}
                for number in range(PROJECTS)
            ]
            wait_until(
                lambda: all(
                    page == expected[number % PROJECTS] for number, page in enumerate(crowd.pages)
                ),
                what="all clients to be up to date",
            )
            assert crowd.snapshots == [1] * CLIENTS
            assert f"runfold_api_watchers {CLIENTS}.0" in api.get("/metrics").text
        assert crowd.failures == []
        wait_until(
            lambda: "runfold_api_watchers 0.0" in api.get("/metrics").text,
            what="the end of all streams",
        )
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    wait_until(lambda: database.execute(sessions).fetchone() == (1,), what="no session left")

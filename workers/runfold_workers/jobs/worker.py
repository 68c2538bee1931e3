"""The job worker: queues jobs and does one at a time.

Three threads: one brings jobs from the table into the queue (if no other process does), one does
queued jobs, one keeps the search index (if no other process does). When Redis or PostgreSQL is
away, they retry without limit.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psycopg
import redis

from runfold_storage.errors import DatabaseUnreachable
from runfold_storage.postgres.connections import connect
from runfold_storage.search.indexer import (
    PAGE,
    backfill,
    become_follower,
    delete_disabled,
    flush_gin_pending,
    follow,
)

from .queue import JobDispatcher, connect_queue, make_queue, take
from .registry import do_job

log = logging.getLogger(__name__)

TURN_S: Final = 1.0
RETRY_S: Final = 1.0
MAX_REST_S: Final = 1.0
MAX_PENDING: Final = 500
"""Runs in GIN's pending list before it is flushed."""
FLUSH_EVERY_S: Final = 5.0
PASSING: Final = (redis.RedisError, psycopg.Error, DatabaseUnreachable, OSError)
"""Errors after which a thread waits and retries."""


@dataclass(frozen=True, slots=True)
class JobWorkerSettings:
    """Where jobs are. Without `jobs_redis_url` the queue is in another database of the Redis."""

    redis_url: str
    database_url: str
    jobs_redis_url: str | None = None
    archive_url: str | None = None
    """Where retention archives expired data; None: it only deletes."""


class JobWorker:
    """Does jobs until `stop`."""

    def __init__(self, settings: JobWorkerSettings) -> None:
        self._settings = settings
        self._stop = threading.Event()

    def stop(self) -> None:
        """Make `run` leave the current job after its next step and return."""
        self._stop.set()

    def run(self) -> None:
        """Work until `stop`."""
        threads = [
            threading.Thread(target=self._retry, args=(task,), daemon=True)
            for task in (self._dispatch, self._index)
        ]
        for thread in threads:
            thread.start()
        self._retry(self._work)
        for thread in threads:
            thread.join()

    def _retry(self, task: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                task()
            except PASSING as error:
                log.warning("a server is away, trying again: %s", error)
            except Exception:
                log.exception("job worker failed, starting over")
            self._stop.wait(RETRY_S)

    def _dispatch(self) -> None:
        settings = self._settings
        with (
            connect_queue(settings.redis_url, settings.jobs_redis_url) as client,
            connect(settings.database_url, autocommit=True) as connection,
        ):
            dispatcher = JobDispatcher(connection, make_queue(client))
            while not self._stop.is_set():
                dispatcher.turn()
                self._stop.wait(TURN_S)

    def _index(self) -> None:
        url = self._settings.database_url
        with connect(url, autocommit=True, application_name="runfold-index") as connection:
            SearchIndexing(connection).work(self._stop)

    def _work(self) -> None:
        settings = self._settings
        with connect_queue(settings.redis_url, settings.jobs_redis_url) as client:
            queue = make_queue(client)
            while not self._stop.is_set():
                job_id = take(queue, timeout_s=1)
                if job_id is not None:
                    url = settings.database_url
                    do_job(url, job_id, self._stop, archive_url=settings.archive_url)


class SearchIndexing:
    """Updates the search index shortly after the fold; needs an autocommit connection of its own.

    It works in short transactions and rests between them for as long as it worked.
    """

    def __init__(self, connection: psycopg.Connection, *, page_runs: int = PAGE) -> None:
        self._connection = connection
        self._page_runs = page_runs
        self._is_follower = False
        self._pending = 0
        self._flushed_at = time.monotonic()
        # A crash of PostgreSQL loses index entries only together with the progress.
        connection.execute("SET synchronous_commit = off")

    def work(self, stop: threading.Event) -> None:
        """Work until `stop`; do nothing while another process keeps the index."""
        while not stop.is_set():
            began = time.monotonic()
            more = self.turn()
            worked_s = time.monotonic() - began
            stop.wait(min(worked_s, MAX_REST_S) if more else TURN_S)

    def turn(self) -> bool:
        """Take the next step of each kind; return whether there is more to do."""
        self._is_follower = self._is_follower or become_follower(self._connection)
        if not self._is_follower:
            return False
        followed = follow(self._connection, self._page_runs)
        self._pending += followed.examined
        if followed.more:
            return True
        looked_back, taken_out = backfill(self._connection), delete_disabled(self._connection)
        self._pending += looked_back.examined
        if self._pending > MAX_PENDING or time.monotonic() - self._flushed_at > FLUSH_EVERY_S:
            if self._pending:  # every search scans the list; larger flushes cost less per run
                flush_gin_pending(self._connection)
            self._pending, self._flushed_at = 0, time.monotonic()
        return looked_back.more or taken_out.more

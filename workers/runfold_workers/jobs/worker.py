"""The job worker: queues jobs and does one at a time.

Three threads: one brings jobs from the table into the queue (if no other process does), one does
queued jobs, one keeps the search index (if no other process does). When Redis or PostgreSQL is
away, they retry without limit.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psycopg
import redis

from runfold_storage.errors import DatabaseUnreachable
from runfold_storage.postgres.connections import connect

from .dispatcher import JobDispatcher
from .registry import do_job
from .rq_queue import connect_queue, make_queue, take
from .search_indexing import SearchIndexing

log = logging.getLogger(__name__)

TURN_S: Final = 1.0
RETRY_S: Final = 1.0
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

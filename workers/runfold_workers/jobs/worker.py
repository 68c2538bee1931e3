"""The worker for the background: hands out jobs, and does one at a time.

Three threads: one brings jobs from the table into the queue (if no other process does), one takes
them out and does them, one keeps the search index (if no other process does). When Redis or
PostgreSQL is away they wait and try again for ever.
Killed, it leaves a job that is handed out again at once, for its lock goes with its connection.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import psycopg
import redis

from runfold_storage.errors import DatabaseUnreachable
from runfold_storage.postgres.connections import connect

from .dispatcher import JobDispatcher
from .registry import do_job
from .rq_queue import SequentialWorker, connect_queue, make_queue
from .search_indexing import SearchIndexing

log = logging.getLogger(__name__)

TURN_S: Final = 1.0
RETRY_S: Final = 1.0
PASSING: Final = (redis.RedisError, psycopg.Error, DatabaseUnreachable, OSError)
"""What is waited out."""


@dataclass(frozen=True, slots=True)
class JobWorkerSettings:
    """Without a `jobs_redis_url` the queue is in another database of the same Redis."""

    redis_url: str
    database_url: str
    jobs_redis_url: str | None = None
    archive_url: str | None = None
    """Where retention puts what it takes away; nowhere without it."""


class JobWorker:
    """Does jobs until it is told to stop."""

    def __init__(self, settings: JobWorkerSettings) -> None:
        self._settings = settings
        self._stop = threading.Event()

    def stop(self) -> None:
        """Leave the job at hand where it is after its next step, and return from `run`."""
        self._stop.set()

    def run(self) -> None:
        """Work until `stop`."""
        others = [
            threading.Thread(target=self._for_ever, args=(turn,), daemon=True)
            for turn in (self._hand_out, self._index)
        ]
        for thread in others:
            thread.start()
        self._for_ever(self._work)
        for thread in others:
            thread.join()

    def _for_ever(self, turn: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                turn()
            except PASSING as error:
                log.warning("a server is away, waiting for it: %s", error)
            except Exception:
                log.exception("starting over")
            self._stop.wait(RETRY_S)

    def _hand_out(self) -> None:
        settings = self._settings
        with (
            connect_queue(settings.redis_url, settings.jobs_redis_url) as client,
            connect(settings.database_url, autocommit=True) as connection,
        ):
            handing_out = JobDispatcher(connection, make_queue(client))
            while not self._stop.is_set():
                handing_out.turn()
                self._stop.wait(TURN_S)

    def _index(self) -> None:
        url = self._settings.database_url
        with connect(url, autocommit=True, application_name="runfold-index") as connection:
            SearchIndexing(connection).work(self._stop)

    def _work(self) -> None:
        settings = self._settings
        with connect_queue(settings.redis_url, settings.jobs_redis_url) as client:
            client.ping()
            SequentialWorker(make_queue(client), self._do, self._stop).work(logging_level="WARNING")

    def _do(self, job_id: UUID) -> None:
        settings = self._settings
        do_job(settings.database_url, job_id, self._stop, archive_url=settings.archive_url)

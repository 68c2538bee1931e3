"""Handing out work: one process at a time brings the table's jobs into the queue.

Whoever holds an advisory lock of the database has the chair; when it dies, or its connection does,
the next one takes it. It brings everything into the queue that is to be done and that nobody is
at, and again what it brought there before and cannot see any more: a queue that was lost, a worker
that died. Twice is harmless: who comes second finds the job taken, or done.
"""

import time
from typing import Final
from uuid import UUID

import psycopg
from rq import Queue

from runfold_storage.jobs import jobs_waiting, take_the_chair

from .queueing import put

PATIENCE_S: Final = 5.0
"""How long a job may be on its way from the queue to a worker before it is brought again."""


class HandingOut:
    """On a connection of its own, which is in autocommit mode."""

    def __init__(self, connection: psycopg.Connection, queue: Queue) -> None:
        self._connection = connection
        self._queue = queue
        self._has_chair = False
        self._brought: dict[UUID, float] = {}

    def turn(self) -> None:
        """Bring what is to be done; nothing, if another process does."""
        self._has_chair = self._has_chair or take_the_chair(self._connection)
        if not self._has_chair:
            return
        now = time.monotonic()
        waiting = jobs_waiting(self._connection)
        self._brought = {job: at for job, at in self._brought.items() if job in set(waiting)}
        for job_id in waiting:
            if now - self._brought.get(job_id, -PATIENCE_S) >= PATIENCE_S:
                put(self._queue, job_id)
                self._brought[job_id] = now

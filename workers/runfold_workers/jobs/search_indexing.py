"""The search index, updated by one job worker shortly after the fold.

It works in short transactions and rests between them for as long as it worked, so a backlog is
folded first and the index catches up later.
"""

import threading
import time
from typing import Final

import psycopg

from runfold_storage.search.indexer import (
    backfill,
    become_follower,
    delete_disabled,
    flush_gin_pending,
    follow,
)

TURN_S: Final = 1.0
MAX_REST_S: Final = 1.0
MAX_PENDING: Final = 500
"""Runs in GIN's pending list before it is flushed."""
FLUSH_EVERY_S: Final = 5.0


class SearchIndexing:
    """Updates the index; needs an autocommit connection of its own."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
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
        followed = follow(self._connection)
        self._pending += followed.examined
        if followed.more:
            return True
        looked_back, taken_out = backfill(self._connection), delete_disabled(self._connection)
        self._pending += looked_back.examined
        if self._pending > MAX_PENDING or time.monotonic() - self._flushed_at > FLUSH_EVERY_S:
            self._flush()
        return looked_back.more or taken_out.more

    def _flush(self) -> None:
        """Flush GIN's pending list, which every search scans; larger flushes cost less per run."""
        if self._pending:
            flush_gin_pending(self._connection)
        self._pending = 0
        self._flushed_at = time.monotonic()

"""The search index, kept by one of the workers for jobs, some moments behind the fold.

It works in short transactions that nobody waits for, and rests in between for as long as it
worked: a backlog that is being folded has the processors first, and the index catches up later.
Until then texts are found by walking through the newest runs (`runfold_storage.search_lookup`).
"""

import threading
import time
from typing import Final

import psycopg

from runfold_storage.search.indexer import (
    backfill,
    become_follower,
    flush_gin_pending,
    follow,
    take_out,
)

TURN_S: Final = 1.0
MAX_REST_S: Final = 1.0
MAX_ASIDE: Final = 500
"""Runs that GIN may put aside before they are sorted in."""
SORTED_EVERY_S: Final = 5.0


class SearchIndexing:
    """On a connection of its own, which is in autocommit mode."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._is_follower = False
        self._put_aside = 0
        self._sorted_at = time.monotonic()
        # What is lost with PostgreSQL's memory is lost together with how far it came.
        connection.execute("SET synchronous_commit = off")

    def work(self, stop: threading.Event) -> None:
        """Until `stop`; nothing, as long as another process does it."""
        while not stop.is_set():
            began = time.monotonic()
            more = self.turn()
            worked_s = time.monotonic() - began
            stop.wait(min(worked_s, MAX_REST_S) if more else TURN_S)

    def turn(self) -> bool:
        """The next step of each kind; returns whether there is more to do."""
        self._is_follower = self._is_follower or become_follower(self._connection)
        if not self._is_follower:
            return False
        followed = follow(self._connection)
        self._put_aside += followed.looked_at
        if followed.more:
            return True
        looked_back, taken_out = backfill(self._connection), take_out(self._connection)
        self._put_aside += looked_back.looked_at
        if self._put_aside > MAX_ASIDE or time.monotonic() - self._sorted_at > SORTED_EVERY_S:
            self._sort_in()
        return looked_back.more or taken_out.more

    def _sort_in(self) -> None:
        """Every search reads through what is put aside; the more there is, the cheaper is this."""
        if self._put_aside:
            flush_gin_pending(self._connection)
        self._put_aside = 0
        self._sorted_at = time.monotonic()

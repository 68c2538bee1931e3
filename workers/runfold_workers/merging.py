"""Differences of small batches are merged into the rollups, a few times a second, beside the fold.

In a thread with a connection of its own: PostgreSQL works on it while the next batch is read and
folded. One shard after the other, evenly, for a batch would wait for a core that merges all. It
takes what waits of every shard, whoever has folded it, so nothing is left behind by a worker that
is gone; what nobody merges yet is read all the same (`runfold_storage.unmerged`).
"""

import logging
import random
import threading
from types import TracebackType
from typing import Final, Self

import psycopg

from runfold_storage.batches import let_go_when_frozen
from runfold_storage.databases import connect
from runfold_storage.errors import DatabaseUnreachable
from runfold_storage.unmerged import merge_differences, waiting_shards

log = logging.getLogger(__name__)

MERGE_EVERY_S: Final = 0.25
"""How often each shard has its turn."""
LOOK_EVERY_S: Final = 1.0
"""While there is nothing to merge."""
RETRY_S: Final = 5.0


class Merging:
    """Merges until it is left, and then once more; use it as a context manager around the fold."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="merging", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                # What is lost in a crash waits again, and so this need not wait for the disk.
                with connect(
                    self._database_url, autocommit=True, options="-c synchronous_commit=off"
                ) as connection:
                    self._merge(connection)
            except (psycopg.Error, DatabaseUnreachable) as error:
                log.warning("statistics wait to be merged: %s", error)
                self._stop.wait(RETRY_S)

    def _merge(self, connection: psycopg.Connection) -> None:
        let_go_when_frozen(connection)
        is_last = False
        while not is_last:
            is_last = self._stop.is_set()
            shards = waiting_shards(connection)
            # In any order, so that one that fails does not keep others from their turn.
            for shard in random.sample(shards, len(shards)):
                merge_differences(connection, shard)
                self._stop.wait(MERGE_EVERY_S / len(shards))
            if not shards:
                self._stop.wait(LOOK_EVERY_S)

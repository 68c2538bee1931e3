"""Merges pending deltas of small batches into the rollups, twice a second, beside the fold.

Shards take turns at even intervals: a batch would wait for a core that merges all at once. Every
worker merges the deltas of all shards, so those of a dead worker are not left.
"""

import logging
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from runfold_storage.errors import DatabaseUnreachable
from runfold_storage.postgres.connections import connect
from runfold_storage.projections.batch_writer import set_session_timeouts
from runfold_storage.rollups.store import merge_deltas, shards_with_pending_deltas

log = logging.getLogger(__name__)

MERGE_EVERY_S: Final = 0.5
"""How often each shard has its turn."""
CHECK_EVERY_S: Final = 1.0
"""While there is nothing to merge."""
RETRY_S: Final = 5.0
# Deltas whose merge is lost in a crash are still pending, so a COMMIT need not wait for the disk. A
# generic plan saves a seventh of the time.
_OPTIONS: Final = "-c synchronous_commit=off -c plan_cache_mode=force_generic_plan"

# Not the numbers of `random` itself, which belong to the program: it may have seeded them.
_random = random.SystemRandom()


@contextmanager
def rollup_merger(database_url: str) -> Iterator[None]:
    """Merge while the context is open, and once more at its end."""
    stop = threading.Event()
    thread = threading.Thread(target=_run, args=(database_url, stop), name="merging", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _run(database_url: str, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            with connect(database_url, autocommit=True, options=_OPTIONS) as connection:
                _merge(connection, stop)
        except Exception as error:
            is_away = isinstance(error, psycopg.Error | DatabaseUnreachable)
            log.warning("cannot merge statistics, trying again: %s", error, exc_info=not is_away)
            stop.wait(RETRY_S)


def _merge(connection: psycopg.Connection, stop: threading.Event) -> None:
    set_session_timeouts(connection)
    is_last = False
    while not is_last:
        is_last = stop.is_set()
        shards = shards_with_pending_deltas(connection)
        # In random order, so that a shard that fails does not block the others.
        for shard in _random.sample(shards, len(shards)):
            merge_deltas(connection, shard)
            stop.wait(MERGE_EVERY_S / len(shards))
        if not shards:
            stop.wait(CHECK_EVERY_S)

"""Differences of small batches are merged into the rollups, twice a second, beside the fold.

In a thread with a connection of its own: PostgreSQL works on it while the next batch is read and
folded. One shard after the other, evenly, for a batch would wait for a core that merges all. It
takes what waits of every shard, whoever has folded it, so nothing is left behind by a worker that
is gone; what nobody merges yet is read all the same (`runfold_storage.unmerged`).
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
from runfold_storage.rollups.pending_deltas import merge_deltas, waiting_shards

log = logging.getLogger(__name__)

MERGE_EVERY_S: Final = 0.5
"""How often each shard has its turn."""
LOOK_EVERY_S: Final = 1.0
"""While there is nothing to merge."""
RETRY_S: Final = 5.0
# What is lost in a crash waits again, and so this need not wait for the disk. To plan the statement
# each time would take a seventh of what it takes.
_OPTIONS: Final = "-c synchronous_commit=off -c plan_cache_mode=force_generic_plan"


@contextmanager
def rollup_merger(database_url: str) -> Iterator[None]:
    """Merge until it is left, and then once more; around the fold."""
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
        except (psycopg.Error, DatabaseUnreachable) as error:
            log.warning("statistics wait to be merged: %s", error)
            stop.wait(RETRY_S)
        except Exception:
            log.exception("merging statistics failed and is tried again")
            stop.wait(RETRY_S)


def _merge(connection: psycopg.Connection, stop: threading.Event) -> None:
    set_session_timeouts(connection)
    is_last = False
    while not is_last:
        is_last = stop.is_set()
        shards = waiting_shards(connection)
        # In any order, so that one that fails does not keep others from their turn.
        for shard in random.sample(shards, len(shards)):
            merge_deltas(connection, shard)
            stop.wait(MERGE_EVERY_S / len(shards))
        if not shards:
            stop.wait(LOOK_EVERY_S)

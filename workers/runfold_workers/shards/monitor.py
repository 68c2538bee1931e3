"""Checks the shards once a second beside the fold: lag, lost frames, partitions ahead of time.

Its failures never end the worker.
"""

import logging
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, Self

import psycopg
import redis

from runfold.protocol import streams
from runfold_storage.checkpoints.change_log import delete_old_changes
from runfold_storage.checkpoints.incidents import raise_incident
from runfold_storage.checkpoints.liveness_limits import Limits
from runfold_storage.checkpoints.positions import load_positions
from runfold_storage.checkpoints.recovery import save_stream_checkpoints
from runfold_storage.checkpoints.streams import Stream, read_lags
from runfold_storage.errors import DatabaseUnreachable, PartitionMissing
from runfold_storage.ledger.partitions import ensure_weeks, weeks_ahead
from runfold_storage.postgres.connections import connect
from runfold_workers.metrics import Metrics

from .lost_runs import LostRunDetector

log = logging.getLogger(__name__)

CHECK_EVERY_S: Final = 1.0
PREPARE_EVERY_S: Final = 3600.0
FORGET_EVERY_S: Final = 30.0
_PREPARE_AGAIN_S: Final = 60.0
_HOUSEKEEPER: Final = 0
"""The worker that folds this shard does the work that a deployment needs only once."""


class ShardMonitor:
    """Checks the shards that it follows; use it as a context manager."""

    def __init__(self, redis_url: str, database_url: str, metrics: Metrics, limits: Limits) -> None:
        self._redis_url = redis_url
        self._database_url = database_url
        self._metrics = metrics
        self._lost_runs = LostRunDetector(limits, metrics)
        self._seen: dict[int, Stream] = {}
        self._shards: frozenset[int] = frozenset()
        self._suspects: frozenset[int] = frozenset()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._prepare_at = 0.0
        self._forget_at = 0.0
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def follow(self, shards: Iterable[int]) -> None:
        """Check exactly these shards from now on; new ones become suspects."""
        with self._lock:
            new = frozenset(shards)
            self._suspects = (self._suspects & new) | (new - self._shards)
            self._metrics.remove_lag(self._shards - new)
            self._seen = {shard: seen for shard, seen in self._seen.items() if shard in new}
            self._shards = new

    @property
    def suspects(self) -> frozenset[int]:
        """Return the shards that have to be examined."""
        return self._suspects

    def examined(self, shard: int) -> None:
        """Record that this shard is no suspect any more."""
        with self._lock:
            self._suspects -= {shard}
            self._seen.pop(shard, None)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._metrics.remove_lag(self._shards)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with (
                    streams.connect(self._redis_url) as client,
                    # A crash may lose what it writes, so it need not wait for the disk.
                    connect(
                        self._database_url, autocommit=True, options="-c synchronous_commit=off"
                    ) as connection,
                ):
                    while not self._stop.wait(CHECK_EVERY_S):
                        self._check(client, connection)
            except (redis.RedisError, psycopg.Error, DatabaseUnreachable) as error:
                log.debug("cannot check the shards: %s", error)  # the fold logs a warning
            except Exception:
                log.exception("checking the shards failed, trying again")
            self._stop.wait(CHECK_EVERY_S)

    def _check(self, client: redis.Redis, connection: psycopg.Connection) -> None:
        shards = self._shards
        if not shards:
            return
        found, lags = read_lags(client, lambda: load_positions(connection, shards))
        wrong = {
            shard
            for shard, lag in lags.items()
            if lag.lost
            or lag.is_replaced
            or not found[shard].is_marked
            or (shard in self._seen and found[shard].added < self._seen[shard].added)
        }
        with self._lock:
            self._suspects |= wrong & self._shards
            sound = {
                shard: found[shard] for shard in (found.keys() & self._shards) - self._suspects
            }
            changed = {
                shard: stream for shard, stream in sound.items() if self._seen.get(shard) != stream
            }
            self._seen |= sound
            for shard in lags.keys() & self._shards:
                self._metrics.set_lag(shard, lags[shard])
        if changed:
            save_stream_checkpoints(connection, changed)
        if _HOUSEKEEPER in shards:
            self._maintain_deployment(client, connection)

    def _maintain_deployment(self, client: redis.Redis, connection: psycopg.Connection) -> None:
        dropped = streams.dropped_events(client)
        if dropped:
            # In this order a crash in between counts them twice instead of never.
            raise_incident(connection, "events_dropped", dropped)
            streams.add_dropped(client, -dropped)
        self._lost_runs.check(client, connection)
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + FORGET_EVERY_S
            delete_old_changes(connection)
        if time.monotonic() < self._prepare_at:
            return
        self._prepare_at = time.monotonic() + PREPARE_EVERY_S
        try:
            ensure_weeks(connection, [*weeks_ahead(datetime.now(UTC).date()), None])
        except PartitionMissing as error:
            self._prepare_at = time.monotonic() + _PREPARE_AGAIN_S
            log.error("cannot create partitions ahead of time: %s", error)  # noqa: TRY400, no stack
            self._metrics.incidents.labels("partition_missing").inc()
            raise_incident(connection, "partition_missing")

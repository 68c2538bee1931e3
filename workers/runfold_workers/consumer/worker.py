"""The worker: its connections, and what happens when a server is away."""

import gc
import logging
import os
import secrets
import socket
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

import psycopg
import redis

from runfold.crash_points import crash_point
from runfold.errors import ShardsDiffer
from runfold.protocol import streams
from runfold.protocol.time_limits import MAX_FUTURE_S
from runfold.serialization.intake import Intake
from runfold_storage.change_feed.notifications import encode_notification
from runfold_storage.checkpoints.incidents import raise_incident
from runfold_storage.checkpoints.liveness_limits import DEFAULT_LIMITS, Limits
from runfold_storage.checkpoints.positions import count_shards, ensure_shards
from runfold_storage.checkpoints.streams import trim
from runfold_storage.errors import DatabaseUnreachable, PartitionMissing
from runfold_storage.postgres.connections import connect
from runfold_storage.records.rows import Batch
from runfold_workers.metrics import Metrics
from runfold_workers.shards.monitor import ShardMonitor
from runfold_workers.shards.ownership import ShardLeases
from runfold_workers.shards.rollup_merger import rollup_merger

from .committer import Committer
from .loop import Collector, Loop
from .pipeline import Pipeline

log = logging.getLogger(__name__)

PASSING: Final = (redis.RedisError, psycopg.Error, DatabaseUnreachable, PartitionMissing)
"""Errors after which the worker waits and retries."""
SWITCH_INTERVAL_S: Final = 0.0003
"""How long the folding thread may keep the interpreter from the writing thread."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Where to read and write; `shards` counts only for the first process of a deployment."""

    redis_url: str
    database_url: str
    shards: int | None = None
    limits: Limits = DEFAULT_LIMITS
    """How long runs may be silent before they are lost."""
    redact_keys: tuple[str, ...] = ()
    """Keys to redact in JSON frames, besides the built-in ones."""
    max_future_s: float = MAX_FUTURE_S
    """How far ahead of this machine's clock an event may be dated."""


class Worker:
    """Folds the shards that it holds leases on, until `stop`."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._collector = Collector()
        self.metrics = Metrics()
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"

    def stop(self) -> None:
        """Make `run` finish the current batch, release the shards and return."""
        self._stop.set()

    def run(self) -> None:
        """Fold until `stop`; return when the last batch is committed."""
        interval_s, was_enabled = sys.getswitchinterval(), gc.isenabled()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.disable()  # see `Collector`
        try:
            self._run()
        finally:
            sys.setswitchinterval(interval_s)
            if was_enabled:
                gc.enable()

    def _run(self) -> None:
        delay_s = 0.1
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self._work()
            except PASSING as error:
                if time.monotonic() - started > 10:
                    delay_s = 0.1
                log.warning(
                    "starting over from the committed positions: error=%r retry_in_s=%.1f",
                    str(error),
                    delay_s,
                )
                self.metrics.restarts.inc()
                self._collector.collect()  # tracebacks of the failure hold the cache in cycles
                if isinstance(error, PartitionMissing):
                    self._report_missing_partition()
                self._stop.wait(delay_s)
                delay_s = min(delay_s * 2, 5.0)

    def _work(self) -> None:
        settings, metrics = self._settings, self.metrics
        with ExitStack() as stack:
            client = stack.enter_context(streams.connect(settings.redis_url))
            writing = stack.enter_context(connect(settings.database_url, autocommit=True))
            reading = stack.enter_context(connect(settings.database_url, autocommit=True))
            ensure_shards(reading, agree_on_shards(client, reading, settings.shards))
            ownership = stack.enter_context(ShardLeases(settings.database_url, self._owner))
            stack.enter_context(rollup_merger(settings.database_url))
            intake = Intake(settings.redact_keys, settings.max_future_s)
            committer = Committer(writing, reading=reading, metrics=metrics, intake=intake)
            publisher = Publisher(client, streams.changes_channel(client))
            pipeline = stack.enter_context(
                Pipeline(committer, partial(_committed, publisher, metrics))
            )
            watch = stack.enter_context(
                ShardMonitor(settings.redis_url, settings.database_url, metrics, settings.limits)
            )
            loop = Loop(client, reading, committer, pipeline, ownership, watch, metrics)
            loop.run(self._stop, self._collector)

    def _report_missing_partition(self) -> None:
        self.metrics.incidents.labels("partition_missing").inc()
        try:
            with connect(self._settings.database_url, autocommit=True) as connection:
                raise_incident(connection, "partition_missing")
        except (psycopg.Error, DatabaseUnreachable) as error:
            log.warning("cannot store the incident: %s", error)


def agree_on_shards(client: redis.Redis, connection: psycopg.Connection, wanted: int | None) -> int:
    """Return the deployment's number of shards; store it in a Redis that has lost it.

    Raise `ShardsDiffer` when Redis, the database and `wanted` disagree.
    """
    known = count_shards(connection)
    if known and streams.agreed_shards(client) is None:
        streams.agree_on_shards(client, known)
    agreed = streams.agree_on_shards(client, wanted)
    if known and agreed != known:
        raise ShardsDiffer(
            f"Redis has {agreed} shards, the database {known}: check that both URLs are of one"
            " deployment; if Redis was flushed, stop the runners, delete the key runfold:shards"
            " in it, and start a worker first"
        )
    return agreed


class Publisher:
    """Notifies subscribers of a committed batch and trims its frames.

    Both may be lost when a worker dies here: subscribers poll a little later, and the next owner of
    the shard trims its stream. Notifications have rows only while the channel has subscribers.
    """

    def __init__(self, client: redis.Redis, channel: str) -> None:
        self._client = client
        self._channel = channel
        self._has_subscribers = False

    def publish_and_trim(self, batch: Batch) -> None:
        """Publish a committed batch and trim its frames.

        The first notification that a new subscriber gets has no rows; it reads them itself.
        """
        with self._client.pipeline(transaction=False) as pipeline:
            message = encode_notification(batch, with_runs=self._has_subscribers)
            pipeline.publish(self._channel, message)
            crash_point("after_publish", pipeline.execute)
            for step in batch.advances:
                trim(pipeline, step.shard, step.position)
            subscribers, *_ = pipeline.execute()
            crash_point("after_trim")
        self._has_subscribers = subscribers > 0


def _committed(publisher: Publisher, metrics: Metrics, batch: Batch) -> None:
    metrics.folded(batch)
    publisher.publish_and_trim(batch)

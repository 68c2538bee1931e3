"""The worker: reads frames, folds them, commits, tells watchers, trims.

Only the commit counts. A worker that dies before it leaves nothing; one that dies after it leaves
frames that are trimmed by its successor and watchers that learn a moment later. When Redis or
PostgreSQL is away it waits and tries again for ever, and starts over from the committed positions.
"""

import json
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

import psycopg
import redis

from runfold import streams
from runfold.crashing import crash_point
from runfold_storage.databases import connect
from runfold_storage.errors import DatabaseUnreachable, PositionMoved
from runfold_storage.positions import ensure_shards
from runfold_storage.rows import Batch

from .committing import Committer
from .garbage import Collector, collected_by_hand
from .ownership import RENEW_S, release_leases, take_leases
from .pipelining import Pipeline
from .reading import BLOCK_MS, BUSY_BLOCK_MS, Reader

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S: Final = 0.0003
"""How long the thread that folds may keep the one that writes waiting for Python."""
_MOST_NAMED: Final = 1000
"""Runs that one message to watchers names; beyond it they look for themselves."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Where to read and to write; `shards` is only what a first process proposes."""

    redis_url: str
    database_url: str
    shards: int | None = None


class Worker:
    """Folds every shard that no other worker holds, until it is told to stop."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._collector = Collector()
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"

    def stop(self) -> None:
        """Finish the batch at hand, give the shards up and return from `run`."""
        self._stop.set()

    def run(self) -> None:
        """Work until `stop`; returns when the last batch is committed."""
        interval_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            with collected_by_hand():
                self._run()
        finally:
            sys.setswitchinterval(interval_s)

    def _run(self) -> None:
        delay_s = 0.1
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self._work()
            except (redis.RedisError, psycopg.Error, DatabaseUnreachable) as error:
                if time.monotonic() - started > 10:
                    delay_s = 0.1
                log.warning(
                    "starting over from the committed positions: error=%r retry_in_s=%.1f",
                    str(error),
                    delay_s,
                )
                self._stop.wait(delay_s)
                delay_s = min(delay_s * 2, 5.0)

    def _work(self) -> None:
        settings = self._settings
        with ExitStack() as stack:
            client = stack.enter_context(streams.connect(settings.redis_url))
            shards = streams.agree_on_shards(client, settings.shards)
            writing = stack.enter_context(connect(settings.database_url, autocommit=True))
            reading = stack.enter_context(connect(settings.database_url, autocommit=True))
            ensure_shards(reading, shards)
            try:
                for _ in self._turns(client, writing, reading):
                    pass
            finally:
                if not reading.broken:
                    crash_point("before_lease_release")
                    release_leases(reading, self._owner)
                    crash_point("after_lease_release")

    def _turns(
        self, client: redis.Redis, writing: psycopg.Connection, reading: psycopg.Connection
    ) -> Iterator[None]:
        """The loop, one turn at a time, so that a simulator can do other things in between."""
        committer = Committer(writing, reading=reading)
        reader = Reader(client)
        renew_at = 0.0
        with Pipeline(committer, partial(publish_and_trim, client)) as pipeline:
            while not self._stop.is_set():
                if time.monotonic() >= renew_at:
                    renews = bool(committer.ahead)
                    crash_point("before_lease_renew" if renews else "before_lease_take")
                    committer.own(take_leases(reading, self._owner))
                    crash_point("after_lease_renew" if renews else "after_lease_take")
                    renew_at = time.monotonic() + RENEW_S
                if not committer.ahead:
                    self._stop.wait(RENEW_S)
                    yield
                    continue
                entries = reader.read(
                    {shard: ahead.position for shard, ahead in committer.ahead.items()},
                    block_ms=BUSY_BLOCK_MS if pipeline.busy else BLOCK_MS,
                )
                try:
                    if entries:
                        crash_point("after_read")
                        pipeline.submit(entries)
                        self._collector.after_batch()
                    elif not pipeline.busy:
                        pipeline.drain()
                        self._collector.when_idle()
                except PositionMoved as moved:
                    log.warning("another worker has moved a shard: shard=%d", moved.shard)
                    committer.disown(moved.shard)
                yield
            with suppress(PositionMoved):  # then its new owner folds it
                pipeline.drain()


def publish_and_trim(client: redis.Redis, batch: Batch) -> None:
    """Tell watchers which runs have changed, and let go of the frames that are committed."""
    pipeline = client.pipeline(transaction=False)
    changed: dict[int, list[str]] = {}
    for row, _ in batch.runs:
        named = changed.setdefault(row.shard, [])
        if len(named) < _MOST_NAMED:
            named.append(row.given_id or str(UUID(bytes=row.run)))
    for step in batch.advances:
        message = {"feed_seq": step.feed_seq, "runs": changed.get(step.shard, [])}
        pipeline.publish(streams.changes_channel(step.shard), json.dumps(message))
    crash_point("after_publish", pipeline.execute)
    for step in batch.advances:
        # Exactly: an approximate trim leaves up to a hundred committed frames behind.
        pipeline.xtrim(
            streams.stream_key(step.shard), minid=_after(step.position), approximate=False
        )
    pipeline.execute()
    crash_point("after_trim")


def _after(position: str) -> str:
    """The id that follows: trimming keeps entries from the given id on."""
    milliseconds, _, sequence = position.partition("-")
    return f"{milliseconds}-{int(sequence) + 1}"

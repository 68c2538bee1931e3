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
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import psycopg
import redis

from runfold import streams
from runfold_storage.databases import connect
from runfold_storage.errors import DatabaseUnreachable, PositionMoved
from runfold_storage.positions import ensure_shards
from runfold_storage.rows import Batch

from .committing import Committer
from .garbage import Collector, collected_by_hand
from .ownership import RENEW_S, release_leases, take_leases
from .reading import Reader

log = logging.getLogger(__name__)

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
        with collected_by_hand():
            self._run()

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
        client = streams.connect(self._settings.redis_url)
        try:
            shards = streams.agree_on_shards(client, self._settings.shards)
            with connect(self._settings.database_url, autocommit=True) as connection:
                ensure_shards(connection, shards)
                try:
                    self._fold(client, connection)
                finally:
                    if not connection.broken:
                        release_leases(connection, self._owner)
        finally:
            client.close()

    def _fold(self, client: redis.Redis, connection: psycopg.Connection) -> None:
        committer = Committer(connection)
        reader = Reader(client)
        renew_at = 0.0
        while not self._stop.is_set():
            if time.monotonic() >= renew_at:
                committer.own(take_leases(connection, self._owner))
                renew_at = time.monotonic() + RENEW_S
            if not committer.positions:
                self._stop.wait(RENEW_S)
                continue
            entries = reader.read({k: p.position for k, p in committer.positions.items()})
            if not entries:
                self._collector.when_idle()
                continue
            try:
                batches = committer.commit(entries)
            except PositionMoved as moved:
                log.warning("another worker has moved a shard: shard=%d", moved.shard)
                committer.disown(moved.shard)
                continue
            _publish_and_trim(client, batches)
            self._collector.after_batch()


def _publish_and_trim(client: redis.Redis, batches: Iterable[Batch]) -> None:
    """Tell watchers which runs have changed, and let go of the frames that are committed."""
    pipeline = client.pipeline(transaction=False)
    for batch in batches:
        changed: dict[int, list[str]] = {}
        for row, _ in batch.runs:
            changed.setdefault(row.shard, []).append(row.given_id or str(row.run))
        for step in batch.advances:
            named = changed.get(step.shard, [])
            message = {"feed_seq": step.feed_seq, "runs": named[:_MOST_NAMED]}
            pipeline.publish(streams.changes_channel(step.shard), json.dumps(message))
            # Exactly: an approximate trim leaves up to a hundred committed frames behind.
            pipeline.xtrim(
                streams.stream_key(step.shard), minid=_after(step.position), approximate=False
            )
    pipeline.execute()


def _after(position: str) -> str:
    """The id that follows: trimming keeps entries from the given id on."""
    milliseconds, _, sequence = position.partition("-")
    return f"{milliseconds}-{int(sequence) + 1}"

"""The loop of a worker: follow the leases, examine suspect shards, read, fold, commit.

Runs in one thread, which alone submits batches: a shard is given up, or its checkpoint recovered,
only after everything that was submitted is committed.
"""

import logging
import threading
import time
from typing import Final

import psycopg
import redis

from runfold.crash_points import crash_point
from runfold.protocol import streams
from runfold_storage.checkpoints.incidents import raise_incident
from runfold_storage.checkpoints.positions import count_shards, load_positions
from runfold_storage.errors import PositionMoved
from runfold_workers.metrics import Metrics
from runfold_workers.shards.monitor import ShardMonitor
from runfold_workers.shards.ownership import RENEW_S, ShardLeases
from runfold_workers.shards.recovery import recover_stream

from .committer import Committer
from .gc_control import BUSY_INTERVAL_S, IDLE_INTERVAL_S, Collector
from .pipeline import Pipeline
from .stream_reader import BLOCK_MS, BUSY_BLOCK_MS, StreamReader

log = logging.getLogger(__name__)

GAP_S: Final = 0.01
"""Minimum time between the starts of two batches. A batch costs as much as the rows of fifty
events, whatever its size, so smaller batches would be later at high rates, not sooner."""


class Loop:
    """Folds the shards of `ownership` until `stop` is set or a server is away."""

    def __init__(
        self,
        client: redis.Redis,
        connection: psycopg.Connection,
        committer: Committer,
        pipeline: Pipeline,
        ownership: ShardLeases,
        watch: ShardMonitor,
        metrics: Metrics,
    ) -> None:
        self._client = client
        self._connection = connection
        self._reader = StreamReader(client, metrics)
        self._committer = committer
        self._pipeline = pipeline
        self._ownership = ownership
        self._watch = watch
        self._metrics = metrics
        self._next_at = 0.0

    def run(self, stop: threading.Event, collector: Collector) -> None:
        """Run until `stop` is set and everything that was read is committed."""
        stopping = False
        while not stopping:
            stopping = stop.is_set()
            self.turn(collector, stopping=stopping)

    def turn(self, collector: Collector, *, stopping: bool) -> None:
        """Take one turn; a simulator calls this directly."""
        try:
            if stopping:
                self._pipeline.drain()
            else:
                self._follow()
                self._examine()
                self._fold_next(collector)
        except PositionMoved as moved:
            self._release_moved(moved)

    def _follow(self) -> None:
        """Take new shards; give up surplus shards once none of their frames is in flight."""
        surplus = self._ownership.surplus
        shards = self._ownership.shards - surplus
        owned = self._committer.positions.keys()
        if owned - shards:
            self._pipeline.drain()
        if owned != shards:
            self._committer.own(sorted(shards))
            self._watch.follow(shards)
        if surplus:
            self._ownership.give_up(surplus)

    def _examine(self) -> None:
        """Recover the checkpoints of shards that look wrong, and check those that are new here."""
        suspects = self._watch.suspects & self._committer.positions.keys()
        if not suspects:
            return
        self._pipeline.drain()
        for shard in sorted(suspects):
            if recover_stream(self._client, self._connection, shard):
                crash_point("after_mend")
                self._committer.disown(shard)  # the next turn takes it at its new position
                streams.agree_on_shards(self._client, count_shards(self._connection))
            self._watch.examined(shard)

    def _fold_next(self, collector: Collector) -> None:
        if not self._committer.ahead:
            self._ownership.wait(RENEW_S)
            return
        if (left_s := self._next_at - time.monotonic()) > 0:
            time.sleep(left_s)
        is_idle = not self._pipeline.busy
        if is_idle:
            self._pipeline.drain()  # the result of the last batch must not wait for new frames
        entries = self._reader.read(
            {shard: ahead.position for shard, ahead in self._committer.ahead.items()},
            block_ms=BLOCK_MS if is_idle else BUSY_BLOCK_MS,
        )
        if entries:
            self._next_at = time.monotonic() + GAP_S
            crash_point("after_read")
            self._pipeline.submit(entries)
            collector.collect(BUSY_INTERVAL_S)
        elif is_idle:
            collector.collect(IDLE_INTERVAL_S)

    def _release_moved(self, moved: PositionMoved) -> None:
        """Drop a shard whose position another worker has moved, until the leases are read again."""
        self._committer.disown(moved.shard)
        found = load_positions(self._connection, [moved.shard])[moved.shard]
        if found.position == moved.position:  # only the generation: the next turn takes it again
            log.info("reloading a shard: shard=%d", moved.shard)
            return
        self._ownership.invalidate(moved.shard)
        log.warning("another worker has moved the position: shard=%d", moved.shard)
        self._metrics.incidents.labels("position_moved").inc()
        raise_incident(self._connection, "position_moved", shard=moved.shard)

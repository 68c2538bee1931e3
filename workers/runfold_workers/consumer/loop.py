"""The loop of a worker: follow the leases, examine what looks wrong, read, fold, commit.

Runs in one thread, which alone decides what is on its way: a shard is given up, or its checkpoint
mended, only after everything that was submitted has been committed.
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
from .gc_control import Collector
from .pipeline import Pipeline
from .stream_reader import BLOCK_MS, BUSY_BLOCK_MS, StreamReader

log = logging.getLogger(__name__)

GAP_S: Final = 0.01
"""Between the beginnings of two batches at least: each costs as much as the rows of fifty events,
whatever it holds, so at high rates smaller ones would come later, not sooner."""


class Loop:
    """Works on whatever shards `ownership` has, until it is told to stop or a server is away."""

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
        """Returns when everything that was read is committed."""
        stopping = False
        while not stopping:
            stopping = stop.is_set()
            self.turn(collector, stopping=stopping)

    def turn(self, collector: Collector, *, stopping: bool) -> None:
        """One turn of it, so that a simulator can do other things in between."""
        try:
            if stopping:
                self._pipeline.drain()
            else:
                self._follow()
                self._examine()
                self._fold_next(collector)
        except PositionMoved as moved:
            self._lose(moved)

    def _follow(self) -> None:
        """Fold what is ours by now. What goes to others goes when nothing of it is on its way."""
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
        """Mend the checkpoints of shards that look wrong, or are new here."""
        suspects = self._watch.suspects & self._committer.positions.keys()
        if not suspects:
            return
        self._pipeline.drain()
        for shard in sorted(suspects):
            if recover_stream(self._client, self._connection, shard):
                crash_point("after_mend")
                self._committer.disown(shard)  # the next turn takes it up where it is now
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
            self._pipeline.drain()  # how the last batch ended must not wait for the next frames
        entries = self._reader.read(
            {shard: ahead.position for shard, ahead in self._committer.ahead.items()},
            block_ms=BLOCK_MS if is_idle else BUSY_BLOCK_MS,
        )
        if entries:
            self._next_at = time.monotonic() + GAP_S
            crash_point("after_read")
            self._pipeline.submit(entries)
            collector.after_batch()
        elif is_idle:
            collector.when_idle()

    def _lose(self, moved: PositionMoved) -> None:
        """Another worker was at this shard: forget it, until the leases say whose it is."""
        self._committer.disown(moved.shard)
        found = load_positions(self._connection, [moved.shard])[moved.shard]
        if found.position == moved.position:  # nobody else folds it: the next turn takes it up
            log.info("taking up a shard anew: shard=%d", moved.shard)
            return
        self._ownership.doubt(moved.shard)
        log.warning("another worker has moved a shard: shard=%d", moved.shard)
        self._metrics.incidents.labels("position_moved").inc()
        raise_incident(self._connection, "position_moved", shard=moved.shard)

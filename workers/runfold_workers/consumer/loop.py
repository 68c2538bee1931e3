"""The loop of a worker: follow the leases, examine suspect shards, read, fold, commit.

Runs in one thread, which alone submits batches: a shard is given up, or its checkpoint recovered,
only after everything that was submitted is committed.
"""

import gc
import logging
import threading
import time
from dataclasses import dataclass
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
from .pipeline import Pipeline
from .stream_reader import BLOCK_MS, BUSY_BLOCK_MS, StreamReader

log = logging.getLogger(__name__)

GAP_S: Final = 0.01
"""Minimum time between the starts of two batches. The fixed cost of a batch equals that of about
fifty events, so at high rates smaller batches would be visible later, not sooner."""


IDLE_INTERVAL_S: Final = 60.0
BUSY_INTERVAL_S: Final = 600.0
"""Between two collections, each of which takes a tenth of a second."""


class Collector:
    """Collects cyclic garbage at times that do not delay the fold.

    Automatic collection would walk all cached runs repeatedly and find nothing, because states hold
    no cycles. So it is off while a worker runs, and the worker collects when it is idle.
    """

    def __init__(self) -> None:
        self._full_at = time.monotonic()

    def collect(self, interval_s: float = 0.0) -> None:
        """Collect if the last collection was longer ago than this."""
        if time.monotonic() - self._full_at >= interval_s:
            gc.collect()
            self._full_at = time.monotonic()


@dataclass
class Loop:
    """Folds the shards of `ownership` until `stop` is set or an error ends it; `Worker` retries."""

    client: redis.Redis
    connection: psycopg.Connection
    committer: Committer
    pipeline: Pipeline
    ownership: ShardLeases
    monitor: ShardMonitor
    metrics: Metrics
    next_at: float = 0.0

    def __post_init__(self) -> None:
        self.reader = StreamReader(self.client, self.metrics)

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
                self.pipeline.drain()
            else:
                self._follow()
                self._examine()
                self._fold_next(collector)
        except PositionMoved as moved:
            self._release_moved(moved)

    def _follow(self) -> None:
        """Take new shards; give up surplus shards once none of their frames is in flight."""
        surplus = self.ownership.surplus
        shards = self.ownership.shards - surplus
        owned = self.committer.positions.keys()
        if owned - shards:
            self.pipeline.drain()
        if owned != shards:
            self.committer.own(sorted(shards))
            self.monitor.follow(shards)
        if surplus:
            self.ownership.give_up(surplus)

    def _examine(self) -> None:
        """Recover the checkpoints of shards that look wrong, and check those that are new here."""
        suspects = self.monitor.suspects & self.committer.positions.keys()
        if not suspects:
            return
        self.pipeline.drain()
        for shard in sorted(suspects):
            if recover_stream(self.client, self.connection, shard):
                crash_point("after_mend")
                self.committer.disown(shard)  # the next turn takes it at its new position
                streams.agree_on_shards(self.client, count_shards(self.connection))
            self.monitor.examined(shard)

    def _fold_next(self, collector: Collector) -> None:
        if not self.committer.ahead:
            self.ownership.wait(RENEW_S)
            return
        if (left_s := self.next_at - time.monotonic()) > 0:
            time.sleep(left_s)
        is_idle = not self.pipeline.busy
        if is_idle:
            self.pipeline.drain()  # the result of the last batch must not wait for new frames
        entries = self.reader.read(
            {shard: ahead.position for shard, ahead in self.committer.ahead.items()},
            block_ms=BLOCK_MS if is_idle else BUSY_BLOCK_MS,
        )
        if entries:
            self.next_at = time.monotonic() + GAP_S
            crash_point("after_read")
            self.pipeline.submit(entries)
            collector.collect(BUSY_INTERVAL_S)
        elif is_idle:
            collector.collect(IDLE_INTERVAL_S)

    def _release_moved(self, moved: PositionMoved) -> None:
        """Drop a shard whose position another worker has moved, until the leases are read again."""
        self.committer.disown(moved.shard)
        found = load_positions(self.connection, [moved.shard])[moved.shard]
        if found.position == moved.position:  # only the generation: the next turn takes it again
            log.info("reloading a shard: shard=%d", moved.shard)
            return
        self.ownership.invalidate(moved.shard)
        log.warning("another worker has moved the position: shard=%d", moved.shard)
        self.metrics.incidents.labels("position_moved").inc()
        raise_incident(self.connection, "position_moved", shard=moved.shard)

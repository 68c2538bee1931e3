"""Lost runs: writes a `lost` event for each run that has been silent for too long.

`checkpoints.liveness` decides which. `lost` is an event like any other, and any later sign of life
of the run revokes it. It is written only for shards that are folded to the end of their streams,
because a waiting frame may hold a sign of life. A second worker writes the same event id.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

import msgspec
import psycopg
import redis

from runfold.protocol import streams
from runfold.protocol.codec import Envelope
from runfold.protocol.frames import encode_json_frame
from runfold.protocol.ids import derive_event_id
from runfold.protocol.time_limits import EARLIEST_US
from runfold_storage.checkpoints.liveness import SilentRun, find_silent, save_liveness_mark
from runfold_storage.checkpoints.liveness_limits import Limits
from runfold_storage.checkpoints.positions import load_positions
from runfold_storage.checkpoints.streams import order, read_streams
from runfold_workers.metrics import Metrics

log = logging.getLogger(__name__)

_FRAME_EVENTS: Final = 500


class LostRunDetector:
    """Runs once a second in the worker that folds shard 0."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._tick_s = limits.tick_s
        self._ends: dict[int, str] = {}
        """Where streams ended at the last check, without those that were folded that far since."""
        self._due = 0.0

    def check(self, client: redis.Redis, connection: psycopg.Connection) -> None:
        """Save liveness marks of the shards that are folded up to their ends; find lost runs."""
        if self._tick_s is None:
            return
        positions = load_positions(connection)
        folded = [
            shard
            for shard, end in self._ends.items()
            if shard in positions and order(positions[shard].position) >= order(end)
        ]
        if folded:
            for shard in folded:
                del self._ends[shard]
            save_liveness_mark(connection, folded, self._limits)
            self._write_lost(client, connection, frozenset(folded))
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + self._tick_s
            found, _ = read_streams(client, positions)
            self._ends = {shard: stream.last for shard, stream in found.items()}

    def _write_lost(
        self, client: redis.Redis, connection: psycopg.Connection, folded: frozenset[int]
    ) -> None:
        silent = [run for run in find_silent(connection, self._limits) if run.shard in folded]
        for shard, frame in _frames(silent):
            client.xadd(streams.stream_key(shard), frame)
        if silent:
            self._metrics.lost.inc(len(silent))
            log.info("runs lost after a long silence: lost_runs=%d", len(silent))


def _frames(silent: Sequence[SilentRun]) -> Iterator[tuple[int, dict[Any, Any]]]:
    by_shard = attrgetter("shard")
    for shard, of_shard in groupby(sorted(silent, key=by_shard), key=by_shard):
        events = [_lost(run) for run in of_shard]
        for first in range(0, len(events), _FRAME_EVENTS):
            yield shard, encode_json_frame(events[first : first + _FRAME_EVENTS])


def _lost(run: SilentRun) -> Envelope:
    event_id = derive_event_id(msgspec.json.encode(("lost", run.run_id, run.last_event_us)))
    body = msgspec.json.encode({"silent_s": run.limit_s})
    # The run may be older than the earliest time that an event may have.
    return Envelope("lost", run.run_id, event_id, max(run.last_event_us, EARLIEST_US), body)

"""From envelopes to frames in their streams, in order, again and again until it works.

Invariant: the events of a lane (a shard's queue) are acknowledged from its front only, and
nothing of a lane is sent while an older part of it is on its way: at most one frame of each
shard goes into a pipeline. So a failure, at whatever point, can repeat events but never lose or
overtake them; the event ids make a repetition harmless. Used by one thread at a time.
"""

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

import redis
import zstandard

from .codec import Envelope
from .errors import ShardsDiffer
from .frames import MAX_FRAME_EVENTS, encode_packed_frame
from .streams import agree_on_shards, shard_of, stream_key

FRAME_EVENTS: Final = 4096
FRAME_BYTES: Final = 256 * 1024
"""A frame is closed when its bodies reach this."""

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
_REPORT_EVERY_S: Final = 60.0

_log = logging.getLogger("runfold")


class Pause:
    """How long to leave alone what has failed."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    def left_s(self) -> float:
        """0 when it may be tried."""
        return max(0.0, self._until - time.monotonic()) if self._failures else 0.0

    def failed(self) -> None:
        """Twice as long as last time; half of it by chance, so that not all come back at once."""
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(self._failures, 20))
        self._failures += 1
        self._until = time.monotonic() + longest * random.uniform(0.5, 1)  # noqa: S311, jitter

    def worked(self) -> None:
        """Start over."""
        self._failures = 0


class Lane:
    """The events of one shard that are not acknowledged yet."""

    def __init__(self) -> None:
        self.events: deque[tuple[Envelope, int]] = deque()
        self.added = 0
        self.acknowledged = 0
        self.pause = Pause()

    def frame(self) -> list[Envelope]:
        """The oldest events, as many as belong into one frame."""
        cut: list[Envelope] = []
        room = FRAME_BYTES
        for envelope, _ in islice(self.events, min(FRAME_EVENTS, MAX_FRAME_EVENTS)):
            cut.append(envelope)
            room -= len(envelope.body)
            if room <= 0:
                break
        return cut

    def acknowledge(self, count: int) -> int:
        """Forget the oldest; returns the bytes that they were counted with."""
        self.acknowledged += count
        return sum(self.events.popleft()[1] for _ in range(count))


class Shipper:
    """Owns the connection and the lanes."""

    def __init__(self, connect: Callable[[], redis.Redis], shards: int | None) -> None:
        self._connect = connect
        self._wanted = shards
        self._client: redis.Redis | None = None
        self._agreed: int | None = None
        self._connected = False
        self._pause = Pause()
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._reported_at: float | None = None
        self.lanes: dict[int, Lane] = {}
        self.epoch = 0

    def prepare(self, *, now: bool = False) -> bool:
        """Connect and agree on the shards, if need be and not too soon after a failure."""
        if self._connected:
            return True
        if self._pause.left_s() and not now:
            return False
        try:
            self._client = self._client or self._connect()
            agreed = self._agree(self._client)
        except Exception as error:  # whatever the reason is, the events wait and it is reported
            self._disconnected(error)
            return False
        if agreed != self._agreed:
            self._agreed = agreed
            self._sort_again()
        self._connected = True
        return True

    def add(self, envelope: Envelope, size: int) -> None:
        """Queue an event; only after `prepare`."""
        assert self._agreed is not None
        shard = shard_of(envelope.run, self._agreed)
        lane = self.lanes.get(shard)
        if lane is None:
            lane = self.lanes[shard] = Lane()
        lane.events.append((envelope, size))
        lane.added += 1

    def send(self, *, now: bool = False) -> tuple[int, int]:
        """Send a frame of each shard that has one; how many events and bytes are in the stream."""
        ready = [
            (shard, lane, lane.frame())
            for shard, lane in self.lanes.items()
            if lane.events and (now or not lane.pause.left_s())
        ]
        if not ready:
            return 0, 0
        frames = [encode_packed_frame(events, self._compressor) for _, _, events in ready]
        assert self._client is not None
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for (shard, _, _), frame in zip(ready, frames, strict=True):
                    pipeline.xadd(stream_key(shard), frame)  # type: ignore[arg-type]  # dict is invariant
                answers = pipeline.execute(raise_on_error=False)
        except Exception as error:
            self._disconnected(error)
            return 0, 0
        return self._settle(ready, answers)

    def left_s(self) -> float | None:
        """How long until `prepare` or `send` can do something; `None`: nothing is queued."""
        if not self._connected:
            return self._pause.left_s()
        return min(
            (lane.pause.left_s() for lane in self.lanes.values() if lane.events), default=None
        )

    @property
    def failing(self) -> bool:
        """Whether the last attempt to connect or to send did not work."""
        return not self._connected

    def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            self._client.close()
        self._client, self._connected = None, False

    def _agree(self, client: redis.Redis) -> int:
        """A deployment that forgot its number (a flushed Redis) is told the one known here."""
        try:
            return agree_on_shards(client, self._wanted or self._agreed)
        except ShardsDiffer:
            if self._wanted is not None:
                raise
            return agree_on_shards(client)

    def _sort_again(self) -> None:
        lanes = self.lanes
        self.lanes = {}
        self.epoch += 1
        for lane in lanes.values():
            for envelope, size in lane.events:
                self.add(envelope, size)

    def _settle(
        self, sent: Iterable[tuple[int, Lane, list[Envelope]]], answers: Iterable[object]
    ) -> tuple[int, int]:
        events = size = 0
        for (_, lane, frame), answer in zip(sent, answers, strict=True):
            if isinstance(answer, redis.ReadOnlyError):
                self._disconnected(answer)  # a former primary: find out who is it now
            if isinstance(answer, Exception):
                lane.pause.failed()
                self._report(answer)
            else:
                lane.pause.worked()
                size += lane.acknowledge(len(frame))
                events += len(frame)
        if events and self._connected:
            self._recovered()
        return events, size

    def _disconnected(self, error: Exception) -> None:
        if self._client is not None:
            self._client.connection_pool.disconnect()
        self._connected = False
        self._pause.failed()
        self._report(error)

    def _report(self, error: Exception) -> None:
        now = time.monotonic()
        if self._reported_at is None or now - self._reported_at >= _REPORT_EVERY_S:
            self._reported_at = now
            _log.warning("Redis takes no events, they wait in memory: %s", error)

    def _recovered(self) -> None:
        self._pause.worked()
        if self._reported_at is not None:
            self._reported_at = None
            _log.info("Redis takes events again")

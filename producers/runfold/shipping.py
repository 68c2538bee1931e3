"""From parcels to frames in their streams, in order, again and again until it works.

Invariant: the parcels of a lane (a shard's queue) are acknowledged from its front only, and
nothing of a lane is sent while an older part of it is on its way: at most one frame of each
shard goes into a pipeline. So a failure, at whatever point, can repeat events but never lose or
overtake them; the event ids make a repetition harmless. Used by one thread at a time.
"""

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import redis

from .errors import ShardsDiffer
from .frames import PACKED_FIELD
from .parcels import Parcel
from .streams import agree_on_shards, stream_key

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
    """The parcels of one shard that are not acknowledged yet."""

    def __init__(self) -> None:
        self.parcels: deque[Parcel] = deque()
        self.pause = Pause()


class Shipper:
    """Owns the connection and the lanes; `split` sorts a parcel for another number of shards."""

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        shards: int | None,
        split: Callable[[Parcel, int], Iterable[Parcel]],
    ) -> None:
        self._connect = connect
        self._wanted = shards
        self._split = split
        self._client: redis.Redis | None = None
        self._agreed: int | None = None
        self._connected = False
        self._pause = Pause()
        self._reported_at: float | None = None
        self._lanes: dict[int, Lane] = {}
        self.epoch = 0

    @property
    def shards(self) -> int:
        """The deployment's number of shards; only after `prepare`."""
        assert self._agreed is not None
        return self._agreed

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
            waiting = self.outstanding()
            self._lanes = {}
            self.add(waiting)
            self.epoch += 1
        self._connected = True
        return True

    def add(self, parcels: Iterable[Parcel]) -> None:
        """Queue parcels; only after `prepare`."""
        for parcel in parcels:
            if parcel.shards != self._agreed:
                self.add(self._split(parcel, self.shards))
                continue
            lane = self._lanes.get(parcel.shard)
            if lane is None:
                lane = self._lanes[parcel.shard] = Lane()
            lane.parcels.append(parcel)

    def outstanding(self) -> list[Parcel]:
        """What was added and is not acknowledged, in order within each shard."""
        return [parcel for lane in self._lanes.values() for parcel in lane.parcels]

    def has_some_to_send(self) -> bool:
        """Whether `send` would send something."""
        return any(lane.parcels and not lane.pause.left_s() for lane in self._lanes.values())

    def send(self, *, now: bool = False) -> list[Parcel]:
        """Send a frame of each shard that has one; returns those that are in their streams."""
        ready = [
            (lane, lane.parcels[0])
            for lane in self._lanes.values()
            if lane.parcels and (now or not lane.pause.left_s())
        ]
        if not ready:
            return []
        assert self._client is not None
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for _, parcel in ready:
                    pipeline.xadd(stream_key(parcel.shard), {PACKED_FIELD: parcel.frame})
                answers = pipeline.execute(raise_on_error=False)
        except Exception as error:
            self._disconnected(error)
            return []
        return self._settle(ready, answers)

    def left_s(self) -> float | None:
        """How long until `prepare` or `send` can do something; `None`: nothing is queued."""
        if not self._connected:
            return self._pause.left_s()
        return min(
            (lane.pause.left_s() for lane in self._lanes.values() if lane.parcels), default=None
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

    def _settle(
        self, sent: Iterable[tuple[Lane, Parcel]], answers: Iterable[object]
    ) -> list[Parcel]:
        settled = []
        for (lane, parcel), answer in zip(sent, answers, strict=True):
            if isinstance(answer, redis.ReadOnlyError):
                self._disconnected(answer)  # a former primary: find out who is it now
            if isinstance(answer, Exception):
                lane.pause.failed()
                self._report(answer)
            else:
                lane.pause.worked()
                lane.parcels.popleft()
                parcel.settled = True
                settled.append(parcel)
        if settled and self._connected:
            self._recovered()
        return settled

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

"""From parcels to frames in their streams, in order, again and again until it works.

Invariant: the parcels of a lane (a shard's queue) are acknowledged from its front only, and
nothing of a lane is sent while an older part of it is on its way: at most one frame of each
shard goes into a pipeline. So a failure, at whatever point, can repeat events but never lose or
overtake them; the event ids make a repetition harmless. Whether a frame lies in memory or in the
spool changes nothing about its place. Used under the dispatcher's lock, which is let go of while
waiting for Redis; what others do meanwhile leaves the front of each lane as it is.
"""

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import redis

from runfold.crash_points import crash_point
from runfold.delivery.frame_writer import append_frames
from runfold.errors import ShardsDiffer
from runfold.protocol.frames import PACKED_FIELD
from runfold.protocol.streams import DEFAULT_SHARDS, agree_on_shards, note_dropped
from runfold.spool.pending_frame import PendingFrame

from .native_threads import OwnedLock

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
_REPORT_EVERY_S: Final = 60.0

_log = logging.getLogger("runfold")


class Backoff:
    """How long to leave alone what has failed."""

    def __init__(self) -> None:
        self._failures = 0
        self._since = 0.0
        self._until = 0.0

    def failing_for_s(self) -> float | None:
        """`None` when the last try worked."""
        return time.monotonic() - self._since if self._failures else None

    def left_s(self) -> float:
        """0 when it may be tried."""
        return max(0.0, self._until - time.monotonic()) if self._failures else 0.0

    def failed(self) -> None:
        """Twice as long as last time; half of it by chance, so that not all come back at once."""
        if not self._failures:
            self._since = time.monotonic()
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(self._failures, 20))
        self._failures += 1
        self._until = time.monotonic() + longest * random.uniform(0.5, 1)  # noqa: S311, jitter

    def worked(self) -> None:
        """Start over."""
        self._failures = 0


class ShardQueue:
    """The parcels of one shard that are not acknowledged yet."""

    def __init__(self) -> None:
        self.parcels: deque[PendingFrame] = deque()
        self.pause = Backoff()


class StreamSender:
    """Owns the connection and the lanes.

    `split` sorts a parcel for another number of shards; `read` gets a frame from the spool, or
    `None` when it is lost; `desk` is the lock under which all of this is called.
    """

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        shards: int | None,
        split: Callable[[PendingFrame, int], Iterable[PendingFrame]],
        read: Callable[[PendingFrame], bytes | None],
        desk: OwnedLock,
    ) -> None:
        self._connect = connect
        self._wanted = shards
        self._split = split
        self._read = read
        self._lock = desk
        self._client: redis.Redis | None = None
        self._abandoned: redis.Redis | None = None
        self._asking = False
        self._agreed: int | None = None
        self._connected = False
        self._pause = Backoff()
        self._reported_at: float | None = None
        self._lanes: dict[int, ShardQueue] = {}
        self.shards = shards or DEFAULT_SHARDS
        """The deployment's number of shards; before the first connection, a good guess."""
        self.epoch = 0

    def prepare(self, *, now: bool = False) -> bool:
        """Connect and agree on the shards, if need be and not too soon after a failure."""
        if self._connected:
            return True
        if self._pause.left_s() and not now:
            return False
        try:
            with self._waiting():
                self._client = self._client or self._connect()
                agreed = self._agree(self._client)
        except Exception as error:  # whatever the reason is, the events wait and it is reported
            self._disconnected(error)
            return False
        self._agreed = agreed
        if agreed != self.shards:
            outstanding, self._lanes, self.shards = self.outstanding(), {}, agreed
            self.add(outstanding)
            self.epoch += 1
        self._connected = True
        return True

    def add(self, parcels: Iterable[PendingFrame]) -> None:
        """Queue parcels."""
        for parcel in parcels:
            if parcel.shards != self.shards:
                self.add(self._split(parcel, self.shards))
                continue
            lane = self._lanes.get(parcel.shard)
            if lane is None:
                lane = self._lanes[parcel.shard] = ShardQueue()
            lane.parcels.append(parcel)

    def outstanding(self) -> list[PendingFrame]:
        """What was added and is not acknowledged, in order within each shard."""
        return [parcel for lane in self._lanes.values() for parcel in lane.parcels]

    def stuck(self, for_s: float) -> list[PendingFrame]:
        """What is queued where nothing has worked for so long."""
        whole = self._pause.failing_for_s()
        if not self._connected and whole is not None and whole >= for_s:
            return self.outstanding()
        return [
            parcel
            for lane in self._lanes.values()
            if lane.parcels and (failing_s := lane.pause.failing_for_s()) is not None
            if failing_s >= for_s
            for parcel in lane.parcels
        ]

    def is_stuck(self, for_s: float) -> bool:
        """Whether nothing has worked for so long, or not for some shard; from any thread."""
        pauses = [lane.pause for lane in list(self._lanes.values()) if lane.parcels]
        if not self._connected:
            pauses.append(self._pause)
        times = [pause.failing_for_s() for pause in pauses]
        return any(failing_s is not None and failing_s >= for_s for failing_s in times)

    @property
    def waiting(self) -> bool:
        """Whether something is queued; from any thread."""
        return any(lane.parcels for lane in list(self._lanes.values()))

    def has_some_to_send(self) -> bool:
        """Whether `send` would send something."""
        return any(lane.parcels and not lane.pause.left_s() for lane in self._lanes.values())

    def send(self, *, now: bool = False) -> list[PendingFrame]:
        """Send a frame of each shard that has one; returns those that are settled now."""
        lost: list[PendingFrame] = []
        ready: list[tuple[ShardQueue, PendingFrame, bytes]] = []
        for lane in self._lanes.values():
            if lane.parcels and (now or not lane.pause.left_s()):
                parcel = lane.parcels[0]
                frame = parcel.frame or self._read(parcel)
                if frame is None:
                    lost.append(lane.parcels.popleft())
                else:
                    ready.append((lane, parcel, frame))
        if not ready:
            return lost
        assert self._client is not None
        crash_point("before_send")
        try:
            with self._waiting():
                answers = append_frames(
                    self._client,
                    [(parcel.shard, {PACKED_FIELD: frame}) for _, parcel, frame in ready],
                )
        except Exception as error:
            self._disconnected(error)
            return lost
        crash_point("after_send")
        return lost + self._settle(ready, answers)

    def tell_dropped(self, events: int) -> bool:
        """Tell the deployment that so many events were given up; whether it knows now."""
        if self._client is None or not self._connected:
            return False
        try:
            with self._waiting():
                note_dropped(self._client, events)
        except redis.ResponseError:  # full, or read-only: frames meet the same and report it
            return False
        except Exception as error:
            self._disconnected(error)
            return False
        return True

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
        """Let go of the connection, and of what lies in the spool."""
        for lane in self._lanes.values():
            lane.parcels = deque(parcel for parcel in lane.parcels if parcel.segment is None)
        if self._client is not None:
            self._client.close()
        self._client, self._connected = None, False

    def take_over(self, desk: OwnedLock) -> None:
        """The thread that used the connection is dead; it may have died waiting for an answer."""
        self._lock = desk
        if self._asking:
            self._abandoned = self._client  # unclosed: the dead thread may hold locks of its pool
            self._client, self._connected = None, False

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """While Redis is asked, others may come to the desk."""
        self._asking = True
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()
            self._asking = False

    def _agree(self, client: redis.Redis) -> int:
        """A deployment that forgot its number (a flushed Redis) is told the one known here."""
        try:
            return agree_on_shards(client, self._wanted or self._agreed)
        except ShardsDiffer:
            if self._wanted is not None:
                raise
            return agree_on_shards(client)

    def _settle(
        self, sent: Iterable[tuple[ShardQueue, PendingFrame, bytes]], answers: Iterable[object]
    ) -> list[PendingFrame]:
        settled = []
        for (lane, parcel, _), answer in zip(sent, answers, strict=True):
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
            _log.warning(
                "Redis takes no events, they have to wait (RUNFOLD_REDIS_URL says where it is): %s",
                error,
            )

    def _recovered(self) -> None:
        self._pause.worked()
        if self._reported_at is not None:
            self._reported_at = None
            _log.info("Redis takes events again")

"""Send frames to the streams of their shards, in order, until Redis acknowledges them.

Invariant: the frames of a shard form a queue and are acknowledged from its front only. A pipeline
holds at most one frame of each shard, so a failure can repeat events but neither lose nor reorder
them. Called under the dispatcher's lock, which is released while a call waits for Redis; meanwhile
other threads may append to the queues but leave their fronts alone.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import redis

from runfold.crash_points import crash_point
from runfold.errors import ShardsDiffer
from runfold.protocol.frames import PACKED_FIELD
from runfold.protocol.streams import DEFAULT_SHARDS, add_dropped, agree_on_shards
from runfold.spool.segment import PendingFrame
from runfold.throttled_log import ThrottledLog

from .frame_writer import append_frames
from .native_threads import OwnedLock

# Not the numbers of `random` itself, which belong to the program: it may have seeded them. The
# system's need no seed, so forked processes do not retry in step.
_random = random.SystemRandom()


class Backoff:
    """Exponential backoff with jitter."""

    def __init__(self, first_s: float = 0.05, longest_s: float = 5.0) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0
        self._since = 0.0
        self._until = 0.0

    def is_failing(self, for_s: float) -> bool:
        """Return whether all attempts of the last `for_s` seconds or more have failed."""
        return self._failures > 0 and time.monotonic() - self._since >= for_s

    def remaining_s(self) -> float:
        """Return the seconds until the next attempt; 0 if it may be made now."""
        return max(0.0, self._until - time.monotonic()) if self._failures else 0.0

    def record_failure(self) -> None:
        """Double the delay. Half of it is random, so that processes do not retry in step."""
        if not self._failures:
            self._since = time.monotonic()
        longest = min(self._longest_s, self._first_s * 2 ** min(self._failures, 20))
        self._failures += 1
        self._until = time.monotonic() + longest * _random.uniform(0.5, 1)

    def reset(self) -> None:
        """Record a success: the next delay is the shortest again."""
        self._failures = 0


class ShardQueue:
    """The frames of one shard that are not acknowledged."""

    def __init__(self) -> None:
        self.frames: deque[PendingFrame] = deque()
        self.backoff = Backoff()


class StreamSender:
    """Owns the connection and the queues.

    `reshard` sorts a frame for another number of shards; `read` returns the packed bytes of a
    spooled frame, or None if they are lost; `lock` is held by every caller.
    """

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        shards: int | None,
        reshard: Callable[[PendingFrame, int], Iterable[PendingFrame]],
        read: Callable[[PendingFrame], bytes | None],
        lock: OwnedLock,
    ) -> None:
        self._connect = connect
        self._configured_shards = shards
        self._reshard = reshard
        self._read = read
        self._lock = lock
        self._client: redis.Redis | None = None
        self._abandoned: redis.Redis | None = None
        self._is_calling_redis = False
        self._agreed_shards: int | None = None
        self._backoff = Backoff()
        self._outage_log = ThrottledLog()
        self._queues: dict[int, ShardQueue] = {}
        self.is_connected = False
        """Whether the last attempt to connect or send succeeded."""
        self.shards = shards or DEFAULT_SHARDS
        """The deployment's number of shards; before the first connection, an assumption."""
        self.epoch = 0
        """Grows whenever frames are sorted for another number of shards."""

    def connect(self, *, now: bool = False) -> bool:
        """Connect and agree on the shards, unless done or, without `now`, during a backoff."""
        if self.is_connected:
            return True
        if self._backoff.remaining_s() and not now:
            return False
        try:
            with self._lock_released():
                self._client = self._client or self._connect()
                agreed = self._agree(self._client)
        except Exception as error:  # whatever the reason, the events wait and it is logged
            self._disconnect(error)
            return False
        self._agreed_shards = agreed
        if agreed != self.shards:
            queued, self._queues, self.shards = self.queued_frames(), {}, agreed
            self.add(queued)
            self.epoch += 1
        self.is_connected = True
        return True

    def add(self, frames: Iterable[PendingFrame]) -> None:
        """Queue frames, sorted for the current number of shards."""
        for frame in frames:
            if frame.shards != self.shards:
                self.add(self._reshard(frame, self.shards))
                continue
            queue = self._queues.get(frame.shard)
            if queue is None:
                queue = self._queues[frame.shard] = ShardQueue()
            queue.frames.append(frame)

    def queued_frames(self) -> list[PendingFrame]:
        """Return all frames that are not acknowledged, in order within each shard."""
        return [frame for queue in self._queues.values() for frame in queue.frames]

    def stuck_frames(self, for_s: float) -> list[PendingFrame]:
        """Return the queued frames of shards that have failed for at least `for_s` seconds."""
        if not self.is_connected and self._backoff.is_failing(for_s):
            return self.queued_frames()
        return [
            frame
            for queue in self._queues.values()
            if queue.frames and queue.backoff.is_failing(for_s)
            for frame in queue.frames
        ]

    def is_stuck(self, for_s: float = 0.0) -> bool:
        """Return whether a shard, or Redis, has failed for so long. Any thread may call this."""
        backoffs = [queue.backoff for queue in list(self._queues.values()) if queue.frames]
        if not self.is_connected:
            backoffs.append(self._backoff)
        return any(backoff.is_failing(for_s) for backoff in backoffs)

    @property
    def has_queued(self) -> bool:
        """Whether any frame is queued. Any thread may ask."""
        return any(queue.frames for queue in list(self._queues.values()))

    def can_send(self) -> bool:
        """Return whether `send` would send something."""
        return any(
            queue.frames and not queue.backoff.remaining_s() for queue in self._queues.values()
        )

    def send(self, *, now: bool = False) -> list[PendingFrame]:
        """Send the first frame of each shard; return the frames that are acknowledged or lost."""
        lost: list[PendingFrame] = []
        ready: list[tuple[ShardQueue, PendingFrame, bytes]] = []
        for queue in self._queues.values():
            if queue.frames and (now or not queue.backoff.remaining_s()):
                frame = queue.frames[0]
                packed = frame.packed or self._read(frame)
                if packed is None:
                    lost.append(queue.frames.popleft())
                else:
                    ready.append((queue, frame, packed))
        if not ready:
            return lost
        assert self._client is not None
        crash_point("before_send")
        try:
            with self._lock_released():
                answers = append_frames(
                    self._client,
                    [(frame.shard, {PACKED_FIELD: packed}) for _, frame, packed in ready],
                )
        except Exception as error:
            self._disconnect(error)
            return lost
        crash_point("after_send")
        return lost + self._acknowledge(ready, answers)

    def report_dropped(self, events: int) -> bool:
        """Add to the deployment's count of dropped events; return whether Redis accepted that."""
        if self._client is None or not self.is_connected:
            return False
        try:
            with self._lock_released():
                add_dropped(self._client, events)
        except redis.ResponseError:  # full or read-only: `send` meets and logs the same
            return False
        except Exception as error:
            self._disconnect(error)
            return False
        return True

    def next_attempt_s(self) -> float | None:
        """Return the seconds until `connect` or `send` can act; None if nothing is queued."""
        if not self.is_connected:
            return self._backoff.remaining_s()
        return min(
            (queue.backoff.remaining_s() for queue in self._queues.values() if queue.frames),
            default=None,
        )

    def close(self) -> None:
        """Close the connection, and forget the frames that are in the spool."""
        for queue in self._queues.values():
            queue.frames = deque(frame for frame in queue.frames if frame.segment is None)
        if self._client is not None:
            self._client.close()
        self._client, self.is_connected = None, False

    def enter_finalization(self, lock: OwnedLock) -> None:
        """Replace the lock; drop a connection in which the dead flusher waited for an answer."""
        self._lock = lock
        if self._is_calling_redis:
            self._abandoned = self._client  # not closed: the dead thread may hold its pool's locks
            self._client, self.is_connected = None, False

    @contextmanager
    def _lock_released(self) -> Iterator[None]:
        """Release the lock while the caller waits for Redis."""
        self._is_calling_redis = True
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()
            self._is_calling_redis = False

    def _agree(self, client: redis.Redis) -> int:
        """Agree on the shards; a flushed Redis gets the number that was agreed on before."""
        try:
            return agree_on_shards(client, self._configured_shards or self._agreed_shards)
        except ShardsDiffer:
            if self._configured_shards is not None:
                raise
            return agree_on_shards(client)

    def _acknowledge(
        self, sent: Iterable[tuple[ShardQueue, PendingFrame, bytes]], answers: Iterable[object]
    ) -> list[PendingFrame]:
        settled = []
        for (queue, frame, _), answer in zip(sent, answers, strict=True):
            if isinstance(answer, redis.ReadOnlyError):
                self._disconnect(answer)  # a former primary: connect again to find the new one
            if isinstance(answer, Exception):
                queue.backoff.record_failure()
                self._log_outage(answer)
            else:
                queue.backoff.reset()
                queue.frames.popleft()
                frame.settled = True
                settled.append(frame)
        if settled and self.is_connected:
            self._backoff.reset()
            self._outage_log.resolve("Redis accepts events again")
        return settled

    def _disconnect(self, error: Exception) -> None:
        if self._client is not None:
            self._client.connection_pool.disconnect()
        self.is_connected = False
        self._backoff.record_failure()
        self._log_outage(error)

    def _log_outage(self, error: Exception) -> None:
        self._outage_log.warning(
            "Redis does not accept events, they wait (check RUNFOLD_REDIS_URL): %s", error
        )

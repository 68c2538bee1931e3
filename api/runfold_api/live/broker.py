"""One subscription to Redis and one reader of PostgreSQL per API process, for all its streams.

PostgreSQL holds the changes; Redis only delivers them sooner. The notifications that workers
publish after a commit carry the changed rows, and the numbers of the changes show whether one is
missing. If one is, if a filter needs PostgreSQL, or once every `POLL_S`, the broker reads the
changes since its cursor. It runs while there are streams, and drops all state with the last one.

Invariant: a subscriber that joined at `cursor` receives every later change, in the order of its
shard. A newer change of a run replaces an older one that has not been sent yet (`subscribers`).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

import redis.asyncio

from runfold.protocol.streams import changes_channel
from runfold_storage.change_feed.notifications import decode_notification
from runfold_storage.change_feed.reader import Cursor, FilterSet
from runfold_storage.errors import StorageError
from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.history import History

from .subscribers import BoundedQueue, Subscriber, Topic, Wakeup
from .updates import Updates, read_updates, updates_of

log = logging.getLogger(__name__)

POLL_S: Final = 1.0
GAP_S: Final = 0.005
"""Pause between two rounds, so that changes that arrive in a burst are read together."""
_RETRY_S: Final = 1.0
_BLOCK_S: Final = 2.0
MAX_BACKLOG_BYTES: Final = 8 * 1024 * 1024
"""Of waiting notifications; beyond that the oldest are dropped, and their changes are read."""


class Broker:
    """Delivers changes to subscribers; use it from one event loop. `end()` ends every stream."""

    def __init__(self, history: History, redis_url: str) -> None:
        self._history = history
        self._redis_url = redis_url
        self._topics: dict[bytes, Topic] = {}
        self._listeners: dict[str, Callable[[], None]] = {}
        self._interests = FilterSet([])
        self._wakeup = Wakeup()
        self._backlog: BoundedQueue[bytes] = BoundedQueue(MAX_BACKLOG_BYTES)
        self._poll_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self.cursor: Cursor | None = None
        self.ended = False

    @property
    def streams(self) -> int:
        return sum(len(topic.subscribers) for topic in self._topics.values()) + len(self._listeners)

    async def subscribe(self, wanted: RunFilter) -> Subscriber:
        """Return a subscriber that receives every later change; `unsubscribe` it at the end."""
        await self._start()
        topic = self._topics.setdefault(wanted.cache_key(), Topic(wanted))
        subscriber = Subscriber(topic)
        topic.subscribers.add(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        topic = subscriber.topic
        topic.subscribers.discard(subscriber)
        if not topic.subscribers:
            self._topics.pop(topic.wanted.cache_key(), None)
        self._stop_if_idle()

    async def add_listener(self, run: str, on_change: Callable[[], None]) -> None:
        """Call `on_change`, the only one of this run, after each change until `remove_listener`."""
        await self._start()
        self._listeners[run] = on_change

    def remove_listener(self, run: str) -> None:
        self._listeners.pop(run, None)
        self._stop_if_idle()

    def end(self) -> None:
        """End all streams at once, so that clients connect to another process."""
        self.ended = True
        for topic in self._topics.values():
            for subscriber in topic.subscribers:
                subscriber.wakeup.set()
        self._notify_listeners(self._listeners)

    async def _start(self) -> None:
        if not self._tasks:
            cursor = await asyncio.to_thread(self._history.feed_cursor)
            if not self._tasks:  # another stream may have started it meanwhile
                self.cursor = cursor
                self._tasks = [
                    asyncio.create_task(self._run()),
                    asyncio.create_task(self._listen()),
                ]

    def _stop_if_idle(self) -> None:
        if not self._topics and not self._listeners:
            for task in self._tasks:
                task.cancel()
            self._tasks = []
            self._backlog.take()

    async def _listen(self) -> None:
        while True:
            try:
                async with (
                    redis.asyncio.Redis.from_url(self._redis_url) as client,
                    client.pubsub(ignore_subscribe_messages=True) as pubsub,
                ):
                    await pubsub.subscribe(changes_channel(client))
                    while True:
                        message = await pubsub.get_message(timeout=_BLOCK_S)
                        if message is not None:
                            self._backlog.add(message["data"])
                            self._wakeup.set()
            except (redis.RedisError, OSError) as error:
                log.debug("without Redis, changes are read once a second: %s", error)
            await asyncio.sleep(_RETRY_S)

    async def _run(self) -> None:
        while True:
            try:
                await self._run_round()
            except StorageError as error:
                log.warning("cannot read changes; retrying: %s", error)
                await asyncio.sleep(_RETRY_S)
            except Exception:
                log.exception("a round of the broker failed; all streams restart from a snapshot")
                self._reset(None)
                await asyncio.sleep(_RETRY_S)
            await asyncio.sleep(GAP_S)
            await self._wakeup.within(POLL_S)

    async def _run_round(self) -> None:
        messages = self._backlog.take()
        clock = asyncio.get_running_loop().time
        if messages and self._publish_messages(messages) and clock() < self._poll_at:
            return
        self._poll_at = clock() + POLL_S
        await self._read_changes()

    def _publish_messages(self, messages: Iterable[bytes]) -> bool:
        """Publish the changes of notifications; return False if PostgreSQL has to be read."""
        matches = {key: topic.match for key, topic in self._topics.items() if topic.match}
        if len(matches) < len(self._topics):
            return False
        for message in messages:
            decoded = decode_notification(message)
            if self.cursor is None or decoded is None:
                return False
            notification = decoded.behind(self.cursor)
            if notification is None:
                return False
            self._publish(updates_of(notification, matches))
        return True

    async def _read_changes(self) -> None:
        updates = None
        if self.cursor is not None:
            filters = [topic.wanted for topic in self._topics.values()]
            if filters != self._interests.filters:
                self._interests = FilterSet(filters)
            updates = await asyncio.to_thread(
                read_updates, self._history, self.cursor, self._interests
            )
        if updates is None:
            self._reset(await asyncio.to_thread(self._history.feed_cursor))
        else:
            self._publish(updates)

    def _publish(self, updates: Updates) -> None:
        self.cursor = updates.changes.cursor
        if not updates.changes.changed:
            return
        for filter_key, topic in self._topics.items():
            if filter_key in updates.own:
                topic.publish(updates)
            else:  # subscribed while the changes were being read
                topic.request_snapshots()
        if self._listeners:
            self._notify_listeners(updates.run_ids() & self._listeners.keys())

    def _reset(self, cursor: Cursor | None) -> None:
        """Restart every stream from a snapshot: changes are unknown or too many."""
        self.cursor = cursor
        for topic in self._topics.values():
            topic.request_snapshots()
        self._notify_listeners(self._listeners)

    def _notify_listeners(self, run_ids: Iterable[str]) -> None:
        for run in list(run_ids):
            self._listeners[run]()

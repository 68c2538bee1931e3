"""The feed of one API process: one subscription to Redis, one reader of PostgreSQL, any number of
watchers.

PostgreSQL is the truth, Redis tells of it sooner: what workers announce after their commits carries
the rows that changed, and the numbers of the changes show whether any is missing. Where one is, or
a filter needs PostgreSQL, or `POLL_S` has passed, a turn reads what has changed since the last one.
So an announcement that is lost only delays. A turn asks once for each different filter which runs
are its own, and hands each watcher of it the same encoded events. The feed works while somebody
watches, and forgets everything when the last one leaves.

Invariant: a watcher that joined when the feed had come as far as `cursor` is given every change
behind it, in the order of the shards' numbers; what it is given for a run it has not yet sent takes
the place of the older (`watchers`).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import redis.asyncio
from sqlalchemy import Connection

from runfold.protocol.streams import changes_channel
from runfold_storage.change_feed.notifications import decode_notification
from runfold_storage.change_feed.reader import Cursor, FilterSet, read_cursor
from runfold_storage.errors import StorageError
from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.history import History

from .subscribers import Subscriber, Topic, wait_and_clear
from .updates import Updates, read_updates, updates_of

log = logging.getLogger(__name__)

POLL_S: Final = 1.0
GAP_S: Final = 0.005
"""Between two turns, so that what comes in bursts is read together."""
_RETRY_S: Final = 1.0
_BLOCK_S: Final = 2.0
_MOST_ANNOUNCED: Final = 64
"""Announcements that wait for a turn; of more, the newest are kept, and the rest is read."""


class Broker:
    """Use from one event loop; `end()` makes every watcher's stream end."""

    def __init__(self, history: History, redis_url: str) -> None:
        self._history = history
        self._redis_url = redis_url
        self._audiences: dict[bytes, Topic] = {}
        self._followers: dict[str, set[Callable[[], None]]] = {}
        self._interests = FilterSet([])
        self._woken = asyncio.Event()
        self._announced: deque[bytes] = deque(maxlen=_MOST_ANNOUNCED)
        self._look_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self.cursor: Cursor | None = None
        self.ended = False

    @property
    def watchers(self) -> int:
        """How many streams are open."""
        lists = sum(len(audience.watchers) for audience in self._audiences.values())
        return lists + sum(len(followers) for followers in self._followers.values())

    async def join(self, wanted: RunFilter) -> Subscriber:
        """A watcher of this filter, who is told every change from now on; `leave` it at the end."""
        await self._start()
        audience = self._audiences.setdefault(wanted.question(), Topic(wanted))
        watcher = Subscriber(audience)
        audience.watchers.add(watcher)
        return watcher

    def leave(self, watcher: Subscriber) -> None:
        """Nothing of it stays behind."""
        audience = watcher.audience
        audience.watchers.discard(watcher)
        if not audience.watchers:
            self._audiences.pop(audience.wanted.question(), None)
        self._rest()

    async def follow(self, run: str, changed: Callable[[], None]) -> None:
        """Call this whenever a run has changed; `unfollow` it at the end."""
        await self._start()
        self._followers.setdefault(run, set()).add(changed)

    def unfollow(self, run: str, changed: Callable[[], None]) -> None:
        """Do not call it again."""
        followers = self._followers.get(run, set())
        followers.discard(changed)
        if not followers:
            self._followers.pop(run, None)
        self._rest()

    def end(self) -> None:
        """The process stops: streams end at once, and clients connect to another one."""
        self.ended = True
        for audience in self._audiences.values():
            for watcher in audience.watchers:
                watcher.wake()
        self._tell_followers(self._followers)

    async def read(self, question: Callable[[Connection], Any]) -> Any:
        """Ask the database, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(None, self._history.read, question)

    async def _start(self) -> None:
        if not self._tasks:
            cursor = await self.read(read_cursor)
            if not self._tasks:  # else another one was faster
                self.cursor = cursor
                self._tasks = [
                    asyncio.create_task(self._turns()),
                    asyncio.create_task(self._listen()),
                ]

    def _rest(self) -> None:
        if not self._audiences and not self._followers:
            for task in self._tasks:
                task.cancel()
            self._tasks = []
            self._announced.clear()

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
                            self._announced.append(message["data"])
                            self._woken.set()
            except (redis.RedisError, OSError) as error:
                log.debug("changes are looked for once a second, without Redis: %s", error)
            await asyncio.sleep(_RETRY_S)

    async def _turns(self) -> None:
        while True:
            try:
                await self._turn()
            except StorageError as error:
                log.warning("the feed of changes waits: %s", error)
                await asyncio.sleep(_RETRY_S)
            except Exception:
                log.exception("a turn of the feed failed; its watchers start over")
                self._reset(None)
                await asyncio.sleep(_RETRY_S)
            await asyncio.sleep(GAP_S)
            await wait_and_clear(self._woken, POLL_S)

    async def _turn(self) -> None:
        announced = list(self._announced)
        self._announced.clear()
        clock = asyncio.get_running_loop().time
        if announced and self._tell_announced(announced) and clock() < self._look_at:
            return
        self._look_at = clock() + POLL_S
        await self._look()

    def _tell_announced(self, messages: Iterable[bytes]) -> bool:
        """Pass on what workers have said; whether nothing has to be read for that."""
        matches = {
            question: audience.match
            for question, audience in self._audiences.items()
            if audience.match is not None
        }
        if len(matches) < len(self._audiences):
            return False
        for message in messages:
            announcement = decode_notification(message)
            if self.cursor is None or announcement is None:
                return False
            heard = announcement.behind(self.cursor)
            if heard is None:
                return False
            self._tell(updates_of(heard, matches))
        return True

    async def _look(self) -> None:
        """Read what has changed since, whatever was announced of it."""
        if self.cursor is None:
            self._reset(await self.read(read_cursor))
            return
        filters = [audience.wanted for audience in self._audiences.values()]
        if filters != self._interests.filters:
            self._interests = FilterSet(filters)
        after, interests = self.cursor, self._interests
        news = await self.read(lambda connection: read_updates(connection, after, interests))
        if news is None:
            self._reset(await self.read(read_cursor))
        else:
            self._tell(news)

    def _tell(self, news: Updates) -> None:
        self.cursor = news.changes.cursor
        if not news.changes.changed:
            return
        for question, audience in self._audiences.items():
            if question in news.own:
                audience.hear(news)
            else:  # it came while the changes were being read
                audience.start_over()
        if self._followers:
            self._tell_followers(news.run_ids() & self._followers.keys())

    def _reset(self, cursor: Cursor | None) -> None:
        """Too much has passed, or it is not known what: everyone starts from a snapshot."""
        self.cursor = cursor
        for audience in self._audiences.values():
            audience.start_over()
        self._tell_followers(self._followers)

    def _tell_followers(self, run_ids: Iterable[str]) -> None:
        for run in list(run_ids):
            for changed in list(self._followers.get(run, ())):
                changed()

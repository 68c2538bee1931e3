"""One watcher of a list: what it has not been sent yet, and where it is.

A change of a run takes the place of an older one that is still waiting, so a slow watcher has at
most one event a run waiting, and is given the newest. With more than `MOST_WAITING` it starts over
from a snapshot instead.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from runfold_storage.change_feed.reader import Cursor, encode_feed_cursor
from runfold_storage.filters.row_matcher import match_of
from runfold_storage.filters.run_filter import RunFilter

from .updates import NonMatching, StreamEvent, Updates

MOST_WAITING: Final = 5_000


class Subscriber:
    """Told by the feed, emptied by the stream of one client."""

    def __init__(self, audience: "Topic") -> None:
        self.audience = audience
        self.needs_snapshot = False
        self._waiting: dict[tuple[int, object], StreamEvent] = {}
        self._reached: Cursor = ()
        self._sent: list[int] = []
        self._awake = asyncio.Event()

    def tell(self, said: Sequence[StreamEvent], cursor: Cursor) -> None:
        """More has happened, up to this cursor."""
        self._reached = cursor
        if not said or self.needs_snapshot:
            return
        for each in said:
            key = (each.change.shard, each.change.run)
            known = self._waiting.get(key)
            if known is None or known.change.change_seq < each.change.change_seq:
                self._waiting[key] = each
        if len(self._waiting) > MOST_WAITING:
            self.start_over()
        else:
            self.wake()

    def start_over(self) -> None:
        """What it has been told is no longer of use: it needs a snapshot."""
        self._waiting.clear()
        self.needs_snapshot = True
        self.wake()

    def prepare(self) -> None:
        """From now on everything is kept that may come behind what is about to be read."""
        self._waiting.clear()
        self.needs_snapshot = False

    def begin(self, cursor: Cursor) -> None:
        """It has everything up to here, from a snapshot or from what it missed."""
        self._sent = list(cursor)
        self._reached = cursor

    def wake(self) -> None:
        """Let its stream look."""
        self._awake.set()

    async def sleep(self, timeout_s: float) -> bool:
        """Until there is something to do; False after this time."""
        return await wait_and_clear(self._awake, timeout_s)

    def take(self) -> list[tuple[str, StreamEvent]]:
        """What is waiting, each with the cursor that holds once it was sent."""
        waiting, self._waiting = self._waiting, {}
        taken = []
        for said in sorted(waiting.values()):
            shard, number = said.change.shard, said.change.change_seq
            if number > self._sent[shard]:
                self._sent[shard] = number
                taken.append((encode_feed_cursor(tuple(self._sent)), said))
        return taken

    def position(self) -> str:
        """Where it is when nothing is waiting: others' changes count as seen."""
        if not self._waiting and len(self._reached) == len(self._sent):
            self._sent = [max(pair) for pair in zip(self._sent, self._reached, strict=True)]
        return encode_feed_cursor(tuple(self._sent))


async def wait_and_clear(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for an event and take it back; False if it did not happen in time."""
    try:
        async with asyncio.timeout(timeout_s):  # `wait_for` would make a task of it
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True


class Topic:
    """The watchers of one filter, and what none of them has to be told of any more."""

    def __init__(self, wanted: RunFilter) -> None:
        self.wanted = wanted
        self.match = match_of(wanted)
        self.watchers: set[Subscriber] = set()
        self._others = NonMatching()

    def hear(self, news: Updates) -> None:
        """Pass on what is of this filter."""
        said = news.said_to(self.wanted.question(), self._others)
        for watcher in self.watchers:
            watcher.tell(said, news.changes.cursor)

    def start_over(self) -> None:
        """Every watcher needs a snapshot."""
        for watcher in self.watchers:
            watcher.start_over()

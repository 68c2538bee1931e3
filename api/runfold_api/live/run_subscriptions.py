"""The watchers of single runs: each run that is watched is read once, however many watch it.

A run's stream has its own state in memory while somebody watches: the run, its nodes and the last
of its output. When the feed says that the run has changed, it is read again, and what differs goes
to the watchers. What waits for a slow one is conflated: a node's newest state, the run's newest
summary; with too much output waiting it is given the whole state anew.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from msgspec import Raw

from runfold_storage.errors import StorageError
from runfold_storage.history import History
from runfold_storage.queries.run.live_state import MAX_LINES, TAIL, RunProgress, read_progress
from runfold_storage.read_models.summaries import NodeSummary, RunSummary

from .broker import Broker
from .subscribers import wait_and_clear

log = logging.getLogger(__name__)

MOST_LINES: Final = 2000
"""Events with output that wait for one watcher."""
GAP_S: Final = 0.05
"""Between two readings of a run; a large one, that takes long to read, is read less often."""
_RETRY_S: Final = 1.0

Event = tuple[str, bytes]


class RunSubscriber:
    """What one client has not been sent yet."""

    def __init__(self) -> None:
        self.needs_snapshot = True
        self.run: RunSummary | None = None
        self.nodes: dict[Any, NodeSummary] = {}
        self.output: list[Raw] = []
        self.is_deleted = False
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """Let its stream look."""
        self._awake.set()

    async def sleep(self, timeout_s: float) -> bool:
        """Until there is something to do; False after this time."""
        return await wait_and_clear(self._awake, timeout_s)

    def tell(
        self, run: RunSummary | None, nodes: dict[Any, NodeSummary], output: list[Raw]
    ) -> None:
        """This has changed."""
        if not self.needs_snapshot:
            self.run = run or self.run
            self.nodes |= nodes
            self.output += output
            self.needs_snapshot = len(self.output) > MOST_LINES
        self.wake()

    def take(self, state: "RunTopic") -> list[Event]:
        """What to send now."""
        run, nodes, output = self.run, self.nodes, self.output
        self.run, self.nodes, self.output = None, {}, []
        if self.is_deleted:
            return [("deleted", msgspec.json.encode({"id": state.id}))]
        if self.needs_snapshot:
            self.needs_snapshot = False
            return [("snapshot", state.snapshot())]
        found: list[Event] = []
        if output:
            found.append(("logged", msgspec.json.encode({"events": output})))
        if nodes:
            found.append(("nodes", msgspec.json.encode({"nodes": list(nodes.values())})))
        if run is not None:
            found.append(("changed", msgspec.json.encode(run)))
        return found


class RunTopic:
    """One run that somebody watches."""

    def __init__(self, feed: Broker, history: History, progress: RunProgress) -> None:
        self.id = progress.run.id
        self.watchers: set[RunSubscriber] = set()
        self.change_seq = progress.change_seq
        self._feed = feed
        self._history = history
        self._run = progress.run
        self._nodes = _by_key(progress.nodes)
        self._output = deque(progress.output, maxlen=TAIL)
        self._log_key = progress.log_key
        self._changed = asyncio.Event()

    def look(self) -> None:
        """It has changed, or may have; or the process stops."""
        self._changed.set()
        if self._feed.ended:
            for watcher in self.watchers:
                watcher.wake()

    def snapshot(self) -> bytes:
        """All of it, with the last of its output."""
        return msgspec.json.encode(
            {"run": self._run, "nodes": list(self._nodes.values()), "output": list(self._output)}
        )

    async def keep_up(self) -> None:
        """Read it whenever it has changed, for as long as somebody watches."""
        clock = asyncio.get_running_loop().time
        while True:
            await self._changed.wait()
            self._changed.clear()
            began = clock()
            try:
                await self._read()
            except StorageError as error:
                log.warning("watching run %s waits: %s", self.id, error)
                self._changed.set()
                await asyncio.sleep(_RETRY_S)
            await asyncio.sleep(max(GAP_S, 3 * (clock() - began)))

    async def _read(self) -> None:
        progress = await self._feed.read(self._progress)
        if progress is None:
            for watcher in self.watchers:
                watcher.is_deleted = True
                watcher.wake()
            return
        nodes = {
            key: node
            for key, node in _by_key(progress.nodes).items()
            if self._nodes.get(key) != node
        }
        run = progress.run if progress.run != self._run else None
        self._run, self.change_seq, self._log_key = (
            progress.run,
            progress.change_seq,
            progress.log_key,
        )
        self._nodes |= nodes
        self._output += progress.output
        if len(progress.output) == MAX_LINES:
            self._changed.set()  # there may be more
        for watcher in self.watchers:
            watcher.is_deleted = False
            watcher.tell(run, nodes, progress.output)

    def _progress(self, connection: Any) -> RunProgress | None:
        place = self._history.find(connection, self.id)
        return None if place is None else read_progress(connection, *place, self._log_key or (0, 0))


class RunTopics:
    """The runs that somebody watches."""

    def __init__(self, feed: Broker, history: History) -> None:
        self._feed = feed
        self._history = history
        self._runs: dict[str, tuple[RunTopic, asyncio.Task[None]]] = {}

    @asynccontextmanager
    async def watching(self, run: str) -> AsyncIterator[tuple[RunTopic, RunSubscriber] | None]:
        """Watch a run; None if it is not known."""
        watched = await self._find(run)
        if watched is None:
            yield None
            return
        watcher = RunSubscriber()
        watched.watchers.add(watcher)
        try:
            yield watched, watcher
        finally:
            watched.watchers.discard(watcher)
            if not watched.watchers and run in self._runs and self._runs[run][0] is watched:
                self._runs.pop(run)[1].cancel()
                self._feed.unfollow(run, watched.look)

    async def _find(self, run: str) -> RunTopic | None:
        if run in self._runs:
            return self._runs[run][0]

        def first(connection: Any) -> RunProgress | None:
            place = self._history.find(connection, run)
            return None if place is None else read_progress(connection, *place)

        progress = await self._feed.read(first)
        if progress is None:
            return None
        if run not in self._runs:
            watched = RunTopic(self._feed, self._history, progress)
            task = asyncio.create_task(watched.keep_up())
            self._runs[run] = (watched, task)
            await self._feed.follow(run, watched.look)
            watched.look()  # it may have changed before the feed knew that it is watched
        return self._runs[run][0]


def _by_key(nodes: list[NodeSummary]) -> dict[Any, NodeSummary]:
    return {(node.node, node.attempt): node for node in nodes}

"""The streams of single runs: each watched run is read once, however many clients watch it.

When the broker reports a change, the run's topic reads it again and queues the differences. Waiting
updates are conflated to the newest state of the run and of each node. A subscriber with too much
waiting output gets a snapshot instead.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from msgspec import Raw

from runfold_storage.errors import StorageError
from runfold_storage.history import History
from runfold_storage.queries.run.detail import MAX_LINES, TAIL, RunProgress
from runfold_storage.read_models.summaries import NodeSummary, RunSummary

from .broker import Broker
from .subscribers import BoundedQueue, Wakeup, size_of

log = logging.getLogger(__name__)

MAX_OUTPUT_EVENTS: Final = 2000
"""Output events that wait for one subscriber."""
MAX_OUTPUT_BYTES: Final = 8 * 1024 * 1024
"""Of waiting output per subscriber, and of the output that a topic keeps for snapshots."""
GAP_S: Final = 0.05
"""Minimum pause between two reads of a run; a run that takes long to read is read less often."""
_RETRY_S: Final = 1.0

Event = tuple[str, bytes]


class RunSubscriber:
    """The updates that one client has not been sent yet."""

    def __init__(self, max_bytes: int = MAX_OUTPUT_BYTES) -> None:
        self.needs_snapshot = True
        self.run: RunSummary | None = None
        self.nodes: dict[Any, NodeSummary] = {}
        self.output: list[Raw] = []
        self._max_bytes = max_bytes
        self._output_bytes = 0
        self.is_deleted = False
        self.wakeup = Wakeup()

    def add(self, run: RunSummary | None, nodes: dict[Any, NodeSummary], output: list[Raw]) -> None:
        """Queue the new state of the run, changed nodes and new output."""
        if not self.needs_snapshot:
            self.run = run or self.run
            self.nodes |= nodes
            self.output += output
            self._output_bytes += sum(map(size_of, output))
            if len(self.output) > MAX_OUTPUT_EVENTS or self._output_bytes > self._max_bytes:
                self.needs_snapshot = True
                self._clear()
        self.wakeup.set()

    def take(self, topic: "RunTopic") -> list[Event]:
        """Remove and return the events to send now, encoded."""
        run, nodes, output = self.run, self.nodes, self.output
        self._clear()
        if self.is_deleted:
            return [("deleted", msgspec.json.encode({"id": topic.id}))]
        if self.needs_snapshot:
            self.needs_snapshot = False
            return [("snapshot", topic.snapshot())]
        events = (
            ("logged", {"events": output} if output else None),
            ("nodes", {"nodes": list(nodes.values())} if nodes else None),
            ("changed", run),
        )
        return [(event, msgspec.json.encode(data)) for event, data in events if data]

    def _clear(self) -> None:
        self.run, self.nodes, self.output, self._output_bytes = None, {}, [], 0


class RunTopic:
    def __init__(self, broker: Broker, history: History, progress: RunProgress) -> None:
        self.id = progress.run.id
        self.subscribers: set[RunSubscriber] = set()
        self.change_seq = progress.change_seq
        self._broker = broker
        self._history = history
        self._run = progress.run
        self._nodes = _by_key(progress.nodes)
        self._output: BoundedQueue[Raw] = BoundedQueue(MAX_OUTPUT_BYTES, TAIL)
        self._add_output(progress.output)
        self._log_key = progress.log_key
        self._changed = asyncio.Event()

    def mark_changed(self) -> None:
        """Read the run again, because it may have changed; or wake the streams to end them."""
        self._changed.set()
        if self._broker.ended:
            for subscriber in self.subscribers:
                subscriber.wakeup.set()

    def snapshot(self) -> bytes:
        return msgspec.json.encode(
            {"run": self._run, "nodes": list(self._nodes.values()), "output": self._output.items()}
        )

    async def run_reads(self) -> None:
        """Read the run whenever it has changed, until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            await self._changed.wait()
            self._changed.clear()
            began = clock()
            try:
                await self._read()
            except StorageError as error:
                log.warning("cannot read run %s; retrying: %s", self.id, error)
                self._changed.set()
                await asyncio.sleep(_RETRY_S)
            await asyncio.sleep(max(GAP_S, 3 * (clock() - began)))

    def _add_output(self, events: list[Raw]) -> None:
        for event in events:
            self._output.add(event)

    async def _read(self) -> None:
        after = self._log_key or (0, 0)
        progress = await asyncio.to_thread(self._history.live_state, self.id, after)
        if progress is None:
            for subscriber in self.subscribers:
                subscriber.is_deleted = True
                subscriber.wakeup.set()
            return
        found = _by_key(progress.nodes)
        nodes = {key: node for key, node in found.items() if self._nodes.get(key) != node}
        run = progress.run if progress.run != self._run else None
        self._run = progress.run
        self.change_seq, self._log_key = progress.change_seq, progress.log_key
        self._nodes |= nodes
        self._add_output(progress.output)
        if len(progress.output) == MAX_LINES:
            self._changed.set()  # there may be more
        for subscriber in self.subscribers:
            subscriber.is_deleted = False
            subscriber.add(run, nodes, progress.output)


class RunTopics:
    def __init__(self, broker: Broker, history: History) -> None:
        self._broker = broker
        self._history = history
        self._topics: dict[str, tuple[RunTopic, asyncio.Task[None]]] = {}

    @asynccontextmanager
    async def subscribe(self, run: str) -> AsyncIterator[tuple[RunTopic, RunSubscriber] | None]:
        """Yield the topic of a run with a new subscriber; None for an unknown run."""
        topic = await self._find(run)
        if topic is None:
            yield None
            return
        subscriber = RunSubscriber()
        topic.subscribers.add(subscriber)
        try:
            yield topic, subscriber
        finally:
            topic.subscribers.discard(subscriber)
            if not topic.subscribers and run in self._topics and self._topics[run][0] is topic:
                self._topics.pop(run)[1].cancel()
                self._broker.remove_listener(run)

    async def _find(self, run: str) -> RunTopic | None:
        if run in self._topics:
            return self._topics[run][0]
        progress = await asyncio.to_thread(self._history.live_state, run)
        if progress is None:
            return None
        if run not in self._topics:
            topic = RunTopic(self._broker, self._history, progress)
            task = asyncio.create_task(topic.run_reads())
            self._topics[run] = (topic, task)
            await self._broker.add_listener(run, topic.mark_changed)
            topic.mark_changed()  # it may have changed before the listener was added
        # Another subscriber may have come and gone meanwhile, and the topic with it.
        return await self._find(run)


def _by_key(nodes: list[NodeSummary]) -> dict[Any, NodeSummary]:
    return {(node.node, node.attempt): node for node in nodes}

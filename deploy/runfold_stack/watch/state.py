"""The state of a watched run or list, updated by the events of a stream. Pure.

A snapshot after a reconnect may repeat what is already known. `apply` returns only what has
changed, so that line output repeats nothing.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from runfold_storage.read_models.summaries import NodeSummary, RunPage, RunSummary

from .sse_client import Received

MAX_LINES: Final = 500
ENDED: Final = ("completed", "failed", "cancelled")
_SPARE: Final = 4
"""A list may hold this many times its limit before the oldest runs are dropped."""


class LoggedEvent(msgspec.Struct, frozen=True):
    """A `logged` event."""

    at: str
    id: int
    text: str
    stream: str = "log"
    node: str | None = None


class _Snapshot(msgspec.Struct):
    run: RunSummary
    nodes: list[NodeSummary]
    output: list[LoggedEvent]


class _Nodes(msgspec.Struct):
    nodes: list[NodeSummary]


class _Logged(msgspec.Struct):
    events: list[LoggedEvent]


class _Removed(msgspec.Struct):
    id: str


_PAGE: Final = msgspec.json.Decoder(RunPage)
_REMOVED: Final = msgspec.json.Decoder(_Removed)
_SNAPSHOT: Final = msgspec.json.Decoder(_Snapshot)
_SUMMARY: Final = msgspec.json.Decoder(RunSummary)
_NODES: Final = msgspec.json.Decoder(_Nodes)
_LOGGED: Final = msgspec.json.Decoder(_Logged)


class Line(NamedTuple):
    """A line of the output; `stream` is stdout, stderr or log."""

    stream: str
    node: str
    text: str


class RunChanges(NamedTuple):
    """The changes that an event has made."""

    run: RunSummary | None = None
    nodes: Sequence[NodeSummary] = ()
    lines: Sequence[Line] = ()


class RunState:
    """One run with its nodes and the end of its output; `run` is None before the first snapshot."""

    def __init__(self) -> None:
        self.run: RunSummary | None = None
        self.is_deleted = False
        self.lines: deque[Line] = deque(maxlen=MAX_LINES)
        self._nodes: dict[tuple[str, int], NodeSummary] = {}
        self._last_logged: tuple[str, int] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether no more changes follow; a lost run may come back."""
        return self.is_deleted or (self.run is not None and self.run.status in ENDED)

    @property
    def nodes(self) -> list[NodeSummary]:
        """The last attempt at each node, in the order of arrival."""
        last: dict[str, NodeSummary] = {}
        for node in self._nodes.values():
            if node.node not in last or last[node.node].attempt < node.attempt:
                last[node.node] = node
        return list(last.values())

    def apply(self, received: Received) -> RunChanges:
        """Apply an event and return the changes; a repeated snapshot changes nothing."""
        match received.event:
            case "snapshot":
                snapshot = _SNAPSHOT.decode(received.data)
                return RunChanges(
                    self._put_run(snapshot.run),
                    self._put_nodes(snapshot.nodes),
                    self._put_output(snapshot.output),
                )
            case "changed":
                return RunChanges(run=self._put_run(_SUMMARY.decode(received.data)))
            case "nodes":
                return RunChanges(nodes=self._put_nodes(_NODES.decode(received.data).nodes))
            case "logged":
                return RunChanges(lines=self._put_output(_LOGGED.decode(received.data).events))
            case "deleted":
                self.is_deleted = True
        return RunChanges()

    def _put_run(self, run: RunSummary) -> RunSummary | None:
        before, self.run = self.run, run
        return None if run == before else run

    def _put_nodes(self, nodes: Sequence[NodeSummary]) -> list[NodeSummary]:
        changed = [node for node in nodes if self._nodes.get((node.node, node.attempt)) != node]
        self._nodes |= {(node.node, node.attempt): node for node in nodes}
        return changed

    def _put_output(self, output: Sequence[LoggedEvent]) -> list[Line]:
        known = self._last_logged
        new = [each for each in output if known is None or (each.at, each.id) > known]
        if new:
            self._last_logged = (new[-1].at, new[-1].id)
        lines = [
            Line(each.stream, each.node or "", text)
            for each in new
            for text in each.text.splitlines()
        ]
        self.lines += lines
        return lines


class ListState:
    """The `limit` runs that began last."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._runs: dict[str, tuple[datetime, RunSummary]] = {}

    @property
    def runs(self) -> list[RunSummary]:
        """The runs, newest first."""
        newest = sorted(self._runs.values(), key=lambda known: (known[0], known[1].id))
        return [run for _, run in reversed(newest[-self._limit :])]

    def apply(self, received: Received, now: datetime) -> list[RunSummary]:
        """Apply an event and return the changed runs in the order of their start."""
        changed: list[RunSummary] = []
        if received.event == "snapshot":
            before, self._runs = self._runs, {}
            page = _PAGE.decode(received.data).runs[::-1]
            for run in page:
                self._put(run, before.get(run.id), now)
            changed = [run for run in page if _run_of(before.get(run.id)) != run]
        elif received.event == "changed":
            run = _SUMMARY.decode(received.data)
            if _run_of(self._runs.get(run.id)) != run:
                changed = [run]
            self._put(run, self._runs.get(run.id), now)
        elif received.event in ("removed", "deleted"):
            self._runs.pop(_REMOVED.decode(received.data).id, None)
        return changed

    def _put(
        self, run: RunSummary, known: tuple[datetime, RunSummary] | None, now: datetime
    ) -> None:
        begun = min(_times(run), default=now if known is None else known[0])
        self._runs[run.id] = (begun, run)
        if len(self._runs) > _SPARE * self._limit:
            kept = {each.id for each in self.runs}
            self._runs = {key: value for key, value in self._runs.items() if key in kept}


def _times(run: RunSummary) -> Iterator[datetime]:
    times: Iterable[datetime | None] = (run.queued_at, run.started_at)
    return (each for each in times if each is not None)


def _run_of(known: tuple[datetime, RunSummary] | None) -> RunSummary | None:
    return None if known is None else known[1]

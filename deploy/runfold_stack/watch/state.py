"""The state of a watched run or list, updated by the events of a stream. Pure.

A snapshot after a reconnect may repeat what is already known. `apply` returns only what has
changed, so that line output repeats nothing.
"""

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from msgspec.json import decode

from runfold_storage.read_models.summaries import NodeSummary, RunPage, RunSummary

from .sse_client import Received

MAX_LINES: Final = 500
ENDED: Final = ("completed", "failed", "cancelled")
_SPARE: Final = 4
"""A list may hold this many times its limit before the oldest runs are dropped."""


class LoggedEvent(msgspec.Struct, frozen=True):
    at: str
    id: int
    text: str
    stream: str = "log"
    node: str | None = None


class _Snapshot(msgspec.Struct):
    """A snapshot of a run; `nodes` and `logged` events have some of its fields."""

    run: RunSummary | None = None
    nodes: list[NodeSummary] = []
    output: list[LoggedEvent] = []
    events: list[LoggedEvent] = []


class _Removed(msgspec.Struct):
    id: str


class Line(NamedTuple):
    """A line of the output; `stream` is stdout, stderr or log."""

    stream: str
    node: str
    text: str


class Changes(NamedTuple):
    runs: Sequence[RunSummary] = ()
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

    def apply(self, received: Received, _now: datetime) -> Changes:
        """Apply an event and return the changes; a repeated snapshot changes nothing."""
        update = _Snapshot()
        match received.event:
            case "snapshot" | "nodes" | "logged":
                update = decode(received.data, type=_Snapshot)
            case "changed":
                update.run = decode(received.data, type=RunSummary)
            case "deleted":
                self.is_deleted = True
        before, self.run = self.run, update.run or self.run
        changed = [n for n in update.nodes if self._nodes.get((n.node, n.attempt)) != n]
        self._nodes |= {(node.node, node.attempt): node for node in update.nodes}
        lines = self._put_output([*update.output, *update.events])
        return Changes([update.run] if update.run and update.run != before else [], changed, lines)

    def _put_output(self, output: Sequence[LoggedEvent]) -> list[Line]:
        known = self._last_logged
        new = [each for each in output if known is None or (each.at, each.id) > known]
        if new:
            self._last_logged = (new[-1].at, new[-1].id)
        lines = [Line(e.stream, e.node or "", text) for e in new for text in e.text.splitlines()]
        self.lines += lines
        return lines


class ListState:
    """The `limit` runs that began last."""

    has_ended = False

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._runs: dict[str, tuple[datetime, RunSummary]] = {}

    @property
    def runs(self) -> list[RunSummary]:
        """The runs, newest first."""
        newest = sorted(self._runs.values(), key=lambda known: (known[0], known[1].id))
        return [run for _, run in reversed(newest[-self._limit :])]

    def apply(self, received: Received, now: datetime) -> Changes:
        """Apply an event and return the changed runs in the order of their start."""
        before, runs = dict(self._runs), []
        match received.event:
            case "snapshot":
                self._runs = {}
                runs = decode(received.data, type=RunPage).runs[::-1]
            case "changed":
                runs = [decode(received.data, type=RunSummary)]
            case "removed" | "deleted":
                self._runs.pop(decode(received.data, type=_Removed).id, None)
        changed = []
        for run in runs:
            known_since, known = before.get(run.id, (now, None))
            times = (at for at in (run.queued_at, run.started_at) if at is not None)
            self._runs[run.id] = (min(times, default=known_since), run)
            if known != run:
                changed.append(run)
        if len(self._runs) > _SPARE * self._limit:
            self._runs = {run.id: self._runs[run.id] for run in self.runs}
        return Changes(changed)

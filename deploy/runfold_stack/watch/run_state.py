"""One run as a watcher knows it: summary, nodes, the last of its output; pure."""

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from runfold_storage.read_models.summaries import NodeSummary, RunSummary

from .sse_client import Received

KEPT_LINES: Final = 500
ENDED: Final = ("completed", "failed", "cancelled")


class Written(msgspec.Struct, frozen=True):
    """A `logged` event."""

    at: str
    id: int
    text: str
    stream: str = "log"
    node: str | None = None


class _Snapshot(msgspec.Struct):
    run: RunSummary
    nodes: list[NodeSummary]
    output: list[Written]


class _Nodes(msgspec.Struct):
    nodes: list[NodeSummary]


class _Logged(msgspec.Struct):
    events: list[Written]


_SNAPSHOT: Final = msgspec.json.Decoder(_Snapshot)
_SUMMARY: Final = msgspec.json.Decoder(RunSummary)
_NODES: Final = msgspec.json.Decoder(_Nodes)
_LOGGED: Final = msgspec.json.Decoder(_Logged)


class Line(NamedTuple):
    """A line of the output; `stream` is stdout, stderr or log."""

    stream: str
    node: str
    text: str


class News(NamedTuple):
    """What an event has changed."""

    run: RunSummary | None = None
    nodes: Sequence[NodeSummary] = ()
    lines: Sequence[Line] = ()


class RunState:
    """`run` is None before the first snapshot, and once it is deleted."""

    def __init__(self) -> None:
        self.run: RunSummary | None = None
        self.is_deleted = False
        self.lines: deque[Line] = deque(maxlen=KEPT_LINES)
        self._nodes: dict[tuple[str, int], NodeSummary] = {}
        self._written: tuple[str, int] | None = None

    @property
    def has_ended(self) -> bool:
        """Nothing more is to come: a run that is lost may come back."""
        return self.is_deleted or (self.run is not None and self.run.status in ENDED)

    @property
    def nodes(self) -> list[NodeSummary]:
        """The last attempt at each, in the order in which they came."""
        last: dict[str, NodeSummary] = {}
        for node in self._nodes.values():
            if node.node not in last or last[node.node].attempt < node.attempt:
                last[node.node] = node
        return list(last.values())

    def apply(self, received: Received) -> News:
        """Take an event into account; a snapshot after a gap repeats nothing."""
        match received.event:
            case "snapshot":
                snapshot = _SNAPSHOT.decode(received.data)
                return News(
                    self._put(snapshot.run),
                    self._put_nodes(snapshot.nodes),
                    self._put_output(snapshot.output),
                )
            case "changed":
                return News(run=self._put(_SUMMARY.decode(received.data)))
            case "nodes":
                return News(nodes=self._put_nodes(_NODES.decode(received.data).nodes))
            case "logged":
                return News(lines=self._put_output(_LOGGED.decode(received.data).events))
            case "deleted":
                self.is_deleted = True
        return News()

    def _put(self, run: RunSummary) -> RunSummary | None:
        before, self.run = self.run, run
        return None if run == before else run

    def _put_nodes(self, nodes: Sequence[NodeSummary]) -> list[NodeSummary]:
        changed = [node for node in nodes if self._nodes.get((node.node, node.attempt)) != node]
        self._nodes |= {(node.node, node.attempt): node for node in nodes}
        return changed

    def _put_output(self, output: Sequence[Written]) -> list[Line]:
        known = self._written
        new = [each for each in output if known is None or (each.at, each.id) > known]
        if new:
            self._written = (new[-1].at, new[-1].id)
        lines = [
            Line(each.stream, each.node or "", text)
            for each in new
            for text in each.text.splitlines()
        ]
        self.lines += lines
        return lines

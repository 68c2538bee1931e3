"""The fold: what a run's events make of it, whatever the order they come in.

Invariant: the state after a set of events is the same for every order in which they are applied,
so that it equals `fold(events sorted by (at, id))`. Each fact is a slot that is won by a rule on
(at, id) alone: `queued`, `started`, the end of a run, the start and the end of an attempt at a
node belong to the earliest event that claims them; a tag to the latest. Usage is a sum over the
winners. Nothing here does I/O or knows the time.

An event must be applied once; `Seen` sees to that.
"""

from typing import Final, NamedTuple
from uuid import UUID

from runfold.events import (
    MAX_NAME,
    Annotated,
    Cancelled,
    Completed,
    Error,
    Event,
    Failed,
    Heartbeat,
    Logged,
    NodeFinished,
    NodeStarted,
    PlannedNode,
    Queued,
    Started,
    Tags,
    Usage,
)

from .seen import Seen

MAX_MESSAGE: Final = 2000
"""Characters of an error's message that summaries keep; the ledger has it whole."""

Stamp = tuple[int, int]
"""(at_us, event id): the order of a run's events."""


class Amounts(NamedTuple):
    """Usage in whole numbers; money in nano-dollars, so that sums are exact."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int = 0


NO_AMOUNTS: Final = Amounts()


class Begin(NamedTuple):
    """What `queued` or `started` said of the run, without payloads."""

    stamp: Stamp
    workflow: str | None
    project: str | None
    trigger_type: str | None
    user: str | None
    session: str | None
    parent_run: str | None
    attempt: int | None


class End(NamedTuple):
    """How the run ended."""

    stamp: Stamp
    status: str
    error: Error | None
    exit_code: int | None
    usage: Usage | None
    duration_us: int | None


class NodeStart(NamedTuple):
    """What `node_started` said."""

    stamp: Stamp
    name: str | None
    node_type: str | None
    parents: list[str] | None


class NodeEnd(NamedTuple):
    """What `node_finished` said."""

    stamp: Stamp
    error: Error | None
    amounts: Amounts
    duration_us: int | None


class Attempt:
    """One attempt at a node."""

    __slots__ = ("finished", "started", "status")

    def __init__(self) -> None:
        self.started: NodeStart | None = None
        self.finished: NodeEnd | None = None
        self.status = "pending"


class Node:
    """A node: its plan, if `queued` or `started` told one, and the attempts at it.

    `counted_as` is the status under which the run counts it: that of the last attempt.
    """

    __slots__ = ("attempts", "counted_as", "last", "plan")

    def __init__(self) -> None:
        self.plan: tuple[Stamp, PlannedNode] | None = None
        self.attempts: dict[int, Attempt] = {}
        self.last = 0
        self.counted_as: str | None = None


class RunState:
    """Everything that is known of one run, without payloads."""

    __slots__ = (
        "annotated",
        "begun",
        "changed_nodes",
        "created_us",
        "ended",
        "given_id",
        "key",
        "node_amounts",
        "node_counts",
        "nodes",
        "queued",
        "seen",
        "seen_us",
        "shard",
        "started",
        "tags",
    )

    def __init__(self, shard: int, key: UUID, given_id: str | None) -> None:
        self.shard = shard
        self.key = key
        self.given_id = given_id
        self.seen = Seen()
        self.created_us: int | None = None
        self.seen_us: int = -(2**63)
        self.queued: Begin | None = None
        self.started: Begin | None = None
        self.begun = False
        self.ended: End | None = None
        self.tags: dict[str, tuple[Stamp, str | None]] = {}
        self.annotated = [0, 0, 0]
        self.node_amounts = [0, 0, 0]
        self.node_counts: dict[str, int] = {}
        self.nodes: dict[str, Node] = {}
        self.changed_nodes: set[tuple[str, int]] = set()

    def apply(self, event: Event, event_id: int, at_us: int) -> None:
        """Take one more event into account."""
        if at_us > self.seen_us:
            self.seen_us = at_us
        if isinstance(event, Heartbeat):  # not in the ledger, so it must not tell anything else
            return
        if self.created_us is None or at_us < self.created_us:
            self.created_us = at_us
        stamp = (at_us, event_id)
        match event:
            case NodeFinished():
                self._node_finished(stamp, event)
            case NodeStarted():
                self._node_started(stamp, event)
            case Logged():
                self.begun = True
            case Completed() | Failed() | Cancelled():
                self._end(stamp, event)
            case Queued() | Started():
                self._begin(stamp, event)
            case Annotated():
                self._tag(stamp, event.tags)
                _add(self.annotated, _amounts(event.usage))
            case _:
                raise AssertionError(f"the fold has no rule for {event.type}")

    def _begin(self, stamp: Stamp, event: Queued | Started) -> None:
        if isinstance(event, Started):
            self.begun = True
            if self.started is None or stamp < self.started.stamp:
                self.started = _begin(stamp, event)
        elif self.queued is None or stamp < self.queued.stamp:
            self.queued = _begin(stamp, event)
        self._plan(stamp, event.nodes)
        self._tag(stamp, event.tags)

    def _node_started(self, stamp: Stamp, event: NodeStarted) -> None:
        self.begun = True
        node, attempt = self._attempt(event.node, event.attempt)
        if attempt.started is None or stamp < attempt.started.stamp:
            attempt.started = NodeStart(stamp, event.name, event.node_type, event.parents)
            if attempt.finished is None:
                attempt.status = "running"
            self._changed(event.node, event.attempt, node)

    def _node_finished(self, stamp: Stamp, event: NodeFinished) -> None:
        self.begun = True
        node, attempt = self._attempt(event.node, event.attempt)
        was = attempt.finished
        if was is not None:
            if was.stamp < stamp:
                return
            _add(self.node_amounts, was.amounts, sign=-1)
        attempt.status = event.status or ("completed" if event.error is None else "failed")
        amounts = _amounts(event.usage)
        attempt.finished = NodeEnd(stamp, _short(event.error), amounts, _to_us(event.duration_ms))
        if amounts is not NO_AMOUNTS:
            _add(self.node_amounts, amounts)
        self._changed(event.node, event.attempt, node)

    def _end(self, stamp: Stamp, event: Completed | Failed | Cancelled) -> None:
        if self.ended is not None and self.ended.stamp < stamp:
            return
        self.ended = End(
            stamp,
            event.type,
            _short(event.error) if isinstance(event, Failed) else None,
            None if isinstance(event, Cancelled) else event.exit_code,
            None if isinstance(event, Cancelled) else event.usage,
            _to_us(event.duration_ms),
        )

    def _plan(self, stamp: Stamp, planned: list[PlannedNode] | None) -> None:
        """The union of all plans counts, and a planned node has a first attempt for good.

        So no row ever vanishes again, whichever plan or attempt comes first.
        """
        for plan in planned or ():
            node, _ = self._attempt(plan.node, 1)
            if node.plan is None or stamp < node.plan[0]:
                node.plan = (stamp, plan)
                self.changed_nodes.update((plan.node, number) for number in node.attempts)

    def _attempt(self, name: str, number: int) -> tuple[Node, Attempt]:
        node = self.nodes.get(name)
        if node is None:
            node = self.nodes[name] = Node()
        attempt = node.attempts.get(number)
        if attempt is None:
            attempt = node.attempts[number] = Attempt()
            if number > node.last:
                node.last = number
            self._changed(name, number, node)
        return node, attempt

    def _changed(self, name: str, number: int, node: Node) -> None:
        self.changed_nodes.add((name, number))
        status = node.attempts[node.last].status
        before = node.counted_as
        if status != before:
            if before is not None:
                self.node_counts[before] -= 1
            self.node_counts[status] = self.node_counts.get(status, 0) + 1
            node.counted_as = status

    def _tag(self, stamp: Stamp, tags: Tags | None) -> None:
        for name, value in (tags or {}).items():
            was = self.tags.get(name)
            if was is None or was[0] < stamp:
                self.tags[name] = (stamp, _tag_text(value))


def _begin(stamp: Stamp, event: Queued | Started) -> Begin:
    return Begin(
        stamp,
        event.workflow,
        event.project,
        None if event.trigger is None else event.trigger.type,
        event.user,
        event.session,
        event.parent_run,
        event.attempt,
    )


def _add(sums: list[int], amounts: Amounts, sign: int = 1) -> None:
    for i, amount in enumerate(amounts):
        sums[i] += sign * amount


def _amounts(usage: Usage | None) -> Amounts:
    if usage is None:
        return NO_AMOUNTS
    cost = to_nano_usd(usage.cost_usd or 0)
    return Amounts(usage.input_tokens or 0, usage.output_tokens or 0, cost)


def to_nano_usd(cost_usd: float) -> int:
    """Whole nano-dollars."""
    return round(cost_usd * 1e9)


def _to_us(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds * 1000)


def _short(error: Error | None) -> Error | None:
    """What a summary keeps of an error: no stack, and strings of a bounded length."""
    if error is None:
        return None
    return Error(
        type=error.type and error.type[:MAX_NAME],
        message=error.message and error.message[:MAX_MESSAGE],
        node=error.node and error.node[:MAX_NAME],
    )


def _tag_text(value: str | float | bool | None) -> str | None:
    """Tags are text, so that a filter need not know what the runner's type was."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)

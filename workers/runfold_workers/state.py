"""The fold: what a run's events make of it, whatever the order they come in.

Invariant: the state after a set of events is the same for every order in which they are applied,
so that it equals `fold(events sorted by (at, id))`. Each fact is a slot that is won by a rule on
(at, id) alone: `queued`, `started`, the end of a run, the start and the end of an attempt at a
node belong to the earliest event that claims them; a tag to the latest. Usage is a sum over the
winners. A run without an end is lost when nothing was said later than `lost`. Nothing here does
I/O or knows the time.

An event must be applied once; `Seen` sees to that. This is the innermost loop of Runfold: a slot
holds what the event said as it was read, and everything derived is left to `images`, which is
asked once a batch.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from msgspec import Struct, field

from runfold.codec import TYPES
from runfold.events import MAX_NAME, PlannedNode, Tags, Usage
from runfold_storage.rows import NodeRow, RunRow

from .facts import (
    HEARTBEAT,
    LOST,
    Annotated,
    Begun,
    Cancelled,
    Completed,
    Error,
    Fact,
    Failed,
    NodeFinished,
    NodeStarted,
    Said,
)
from .seen import Seen

MAX_MESSAGE: Final = 2000
"""Characters of an error's message that summaries keep; the ledger has it whole."""

Stamp = tuple[int, int]
"""(at_us, event id): the order of a run's events."""

Rule = Callable[["RunState", Stamp, Any], None]

NEVER: Final = 2**63
"""Later than any event."""
NO_STAMP: Final = (NEVER, 0)


Amounts = tuple[int, int, int]
"""Input tokens, output tokens, and money in nano-dollars, whole so that sums are exact."""

NO_AMOUNTS: Final = (0, 0, 0)


class Attempt(Struct, gc=False):
    """One attempt at a node; `row` is its row in the tables, `changed` that it needs a new one.

    A node's attempts are a chain: `earlier` leads from one to that with the next lower number.
    `counted_as` is the status under which the run counts the node, by its last attempt.
    """

    name: str
    number: int
    earlier: "Attempt | None" = None
    started: NodeStarted | None = None
    started_at: Stamp = NO_STAMP
    finished: NodeFinished | None = None
    finished_at: Stamp = NO_STAMP
    amounts: Amounts = NO_AMOUNTS
    error: Error | None = None
    status: str = "pending"
    counted_as: str | None = None
    changed: bool = False
    row: NodeRow | None = None


class RunState(Struct, gc=False):
    """Everything that is known of one run, without payloads; `row` is its row in the tables.

    A struct of `msgspec` because it is made in a third of the time; like its parts, it is part of
    no cycle, so that the collector need not know it. `batch` is the last one that touched it.
    """

    shard: int
    key: bytes
    id: str
    given_id: str | None
    seen: Seen = field(default_factory=Seen)
    created_us: int = NEVER
    seen_us: int = -NEVER
    lost_us: int = -NEVER - 1
    begun: bool = False
    queued: Begun | None = None
    queued_at: Stamp = NO_STAMP
    started: Begun | None = None
    started_at: Stamp = NO_STAMP
    ended: Completed | Failed | Cancelled | None = None
    ended_at: Stamp = NO_STAMP
    ended_as: str = ""
    error: Error | None = None
    tags: dict[str, tuple[Stamp, str | None]] | None = None
    annotated: Amounts = NO_AMOUNTS
    tokens_in: int = 0
    tokens_out: int = 0
    cost_nano_usd: int = 0
    nodes: dict[str, Attempt] = field(default_factory=dict)
    node_counts: dict[str, int] = field(default_factory=dict)
    plans: dict[str, tuple[Stamp, PlannedNode]] | None = None
    n_attempts: int = 0
    changed: list[Attempt] = field(default_factory=list)
    row: RunRow | None = None
    batch: int = 0
    weight: int = 0

    def apply(self, kind: int, at_us: int, event_id: int, fact: Fact) -> None:
        """Take one more event into account; `kind` is the place of its type in `TYPES`."""
        if at_us > self.seen_us:
            self.seen_us = at_us
        if kind == HEARTBEAT:  # not in the ledger, so it must not tell anything else
            return
        if kind == LOST:
            self.lost_us = max(at_us, self.lost_us)
            return
        if at_us < self.created_us:
            self.created_us = at_us
        RULES[kind](self, (at_us, event_id), fact)

    def hear(self, kind: int, at_us: int, fact: Fact) -> bool:
        """Take a heartbeat or `lost` into account; whether the ledger has to know of it.

        What it is not told must not matter to a fold of it: so it gets each `lost` that nothing
        known refutes, and of the heartbeats, which would be most of it, those that take one back.
        """
        is_news = at_us >= self.seen_us if kind == LOST else self.is_lost and at_us > self.lost_us
        self.apply(kind, at_us, 0, fact)
        return is_news

    @property
    def is_lost(self) -> bool:
        """No end, and no sign of life since somebody found that there had been none."""
        return self.lost_us >= self.seen_us and self.ended is None

    def attempt(self, name: str, number: int) -> Attempt:
        """This attempt, made if need be, and then to be touched."""
        last = self.nodes.get(name)
        if last is None or last.number < number:
            attempt = self.nodes[name] = Attempt(name, number, last)
            if last is not None and last.counted_as is not None:
                self.node_counts[last.counted_as] -= 1
        elif last.number == number:
            return last
        else:
            later = last
            while later.earlier is not None and later.earlier.number > number:
                later = later.earlier
            if later.earlier is not None and later.earlier.number == number:
                return later.earlier
            attempt = later.earlier = Attempt(name, number, later.earlier)
        self.n_attempts += 1
        return attempt

    def attempts(self, name: str) -> Iterator[Attempt]:
        """A node's attempts, the last one first."""
        attempt = self.nodes.get(name)
        while attempt is not None:
            yield attempt
            attempt = attempt.earlier

    def touch(self, attempt: Attempt) -> None:
        """Its row has to be made anew."""
        if not attempt.changed:
            attempt.changed = True
            self.changed.append(attempt)

    def take_changed(self) -> list[Attempt]:
        """The attempts that need a new row; afterwards `node_counts` is up to date."""
        changed, self.changed = self.changed, []
        nodes, counts = self.nodes, self.node_counts
        for attempt in changed:
            attempt.changed = False
            status, counted_as = attempt.status, attempt.counted_as
            if status != counted_as and nodes[attempt.name] is attempt:
                if counted_as is not None:
                    counts[counted_as] -= 1
                counts[status] = counts.get(status, 0) + 1
                attempt.counted_as = status
        return changed


def _queued(run: RunState, stamp: Stamp, said: Begun) -> None:
    if stamp < run.queued_at:
        run.queued, run.queued_at = said, stamp
    _begin(run, stamp, said)


def _started(run: RunState, stamp: Stamp, said: Begun) -> None:
    run.begun = True
    if stamp < run.started_at:
        run.started, run.started_at = said, stamp
    _begin(run, stamp, said)


def _begin(run: RunState, stamp: Stamp, said: Begun) -> None:
    if said.nodes:
        _plan(run, stamp, said.nodes)
    if said.tags:
        _tag(run, stamp, said.tags)


def _plan(run: RunState, stamp: Stamp, planned: list[PlannedNode]) -> None:
    """The union of all plans counts, and a planned node has a first attempt for good.

    So no row ever vanishes again, whichever plan or attempt comes first.
    """
    plans = run.plans
    if plans is None:
        plans = run.plans = {}
    for plan in planned:
        run.touch(run.attempt(plan.node, 1))
        known = plans.get(plan.node)
        if known is None or stamp < known[0]:
            plans[plan.node] = (stamp, plan)
            for attempt in run.attempts(plan.node):
                run.touch(attempt)


def _node_started(run: RunState, stamp: Stamp, said: NodeStarted) -> None:
    run.begun = True
    attempt = run.nodes.get(said.node)
    if attempt is None or attempt.number != said.attempt:
        attempt = run.attempt(said.node, said.attempt)
    if stamp < attempt.started_at:
        attempt.started, attempt.started_at = said, stamp
        if attempt.finished is None:
            attempt.status = "running"
        if not attempt.changed:
            run.touch(attempt)


def _node_finished(run: RunState, stamp: Stamp, said: NodeFinished) -> None:
    run.begun = True
    attempt = run.nodes.get(said.node)
    if attempt is None or attempt.number != said.attempt:
        attempt = run.attempt(said.node, said.attempt)
    if stamp > attempt.finished_at:
        return
    attempt.finished, attempt.finished_at = said, stamp
    attempt.status = said.status or ("completed" if said.error is None else "failed")
    if said.error is not None or attempt.error is not None:
        attempt.error = said.error and _short(said.error)
    if said.usage is not None or attempt.amounts is not NO_AMOUNTS:
        was, now = attempt.amounts, amounts_of(said.usage)
        attempt.amounts = now
        run.tokens_in += now[0] - was[0]
        run.tokens_out += now[1] - was[1]
        run.cost_nano_usd += now[2] - was[2]
    if not attempt.changed:
        run.touch(attempt)


def _logged(run: RunState, _stamp: Stamp, _said: Said) -> None:
    run.begun = True


def _annotated(run: RunState, stamp: Stamp, said: Annotated) -> None:
    if said.tags:
        _tag(run, stamp, said.tags)
    if said.usage is not None:
        early, late = run.annotated, amounts_of(said.usage)
        run.annotated = (early[0] + late[0], early[1] + late[1], early[2] + late[2])


def _end(status: str) -> Rule:
    def end(run: RunState, stamp: Stamp, said: Completed | Failed | Cancelled) -> None:
        if stamp < run.ended_at:
            run.ended, run.ended_at, run.ended_as = said, stamp, status
            run.error = None if said.error is None else _short(said.error)

    return end


_RULE_OF: Final[dict[str, Rule]] = {
    "queued": _queued,
    "started": _started,
    "node_started": _node_started,
    "node_finished": _node_finished,
    "logged": _logged,
    "annotated": _annotated,
    "heartbeat": _logged,  # never asked
    "completed": _end("completed"),
    "failed": _end("failed"),
    "cancelled": _end("cancelled"),
    "lost": _logged,  # never asked
}
RULES: Final = tuple(_RULE_OF[name] for name in TYPES)
"""What an event of each type does to its run, by the place of the type in `TYPES`."""


def _tag(run: RunState, stamp: Stamp, tags: Tags) -> None:
    known = run.tags
    if known is None:
        known = run.tags = {}
    for name, value in tags.items():
        was = known.get(name)
        if was is None or was[0] < stamp:
            known[name] = (stamp, _tag_text(value))


def amounts_of(usage: Usage | None) -> Amounts:
    """Usage in whole numbers."""
    if usage is None:
        return NO_AMOUNTS
    cost = to_nano_usd(usage.cost_usd or 0)
    return (usage.input_tokens or 0, usage.output_tokens or 0, cost)


def to_nano_usd(cost_usd: float) -> int:
    """Whole nano-dollars."""
    return round(cost_usd * 1e9)


def to_us(milliseconds: float) -> int:
    """Whole microseconds."""
    return round(milliseconds * 1000)


def _short(error: Error) -> Error:
    """What a summary keeps of an error: strings of a bounded length."""
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

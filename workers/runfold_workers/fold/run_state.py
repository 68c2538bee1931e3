"""The state of a run: what its events make of it, in whatever order they come.

Invariant: the state equals `fold(events sorted by (at, id))`. The earliest event wins each of
these: `queued`, `started`, the run's end, the start and the end of an attempt at a node. The latest
event wins a tag. Usage is a sum over the winners. A run is lost if it has a `lost` event, no end,
and no sign of life after that event. Each event is applied once; `EventIdSet` ensures that.
`projection` derives the rows and the status.
"""

from collections.abc import Iterator
from sys import getsizeof
from typing import Final

from msgspec import Struct, field

from runfold.protocol.events import PlannedNode, Usage
from runfold_storage.records.rows import NodeRow, RunRow

from .event_facts import (
    CancelledFacts,
    CompletedFacts,
    ErrorFacts,
    FailedFacts,
    NodeFinishedFacts,
    NodeStartedFacts,
    RunStartFacts,
)

Amounts = tuple[int, int, int]
"""Input tokens, output tokens, and money in nano-dollars, whole so that sums are exact."""

NO_AMOUNTS: Final = (0, 0, 0)


def amounts_of(usage: Usage | None) -> Amounts:
    """Return usage in whole numbers."""
    if usage is None:
        return NO_AMOUNTS
    cost = to_nano_usd(usage.cost_usd or 0)
    return (usage.input_tokens or 0, usage.output_tokens or 0, cost)


def to_nano_usd(cost_usd: float) -> int:
    """Return whole nano-dollars."""
    return round(cost_usd * 1e9)


def to_us(milliseconds: float) -> int:
    """Return whole microseconds."""
    return round(milliseconds * 1000)


Stamp = tuple[int, int]
"""(at_us, event id): the order of a run's events."""

NEVER: Final = 2**63
"""Later than any event."""
NO_STAMP: Final = (NEVER, 0)


class EventIdSet(Struct, gc=False):
    """A set of event ids, small because emitters number their events without gaps.

    `expected` is the next id of the first emitter, `others` has that of every other one. Ids that
    came early are held one by one in `beyond`. While that is empty, `BatchBuilder` increments
    `expected` itself when that id comes.
    """

    expected: int = -1
    beyond: set[int] | None = None
    others: dict[int, int] | None = None

    def add(self, event_id: int) -> bool:
        """Add an id; return whether it is new."""
        emitter = event_id >> 32
        if self.expected < 0:
            self.expected = emitter << 32
        first = self.expected >> 32 == emitter
        if first:
            expected = self.expected
        else:
            if self.others is None:
                self.others = {}
            expected = self.others.get(emitter, emitter << 32)
        if event_id > expected:
            return self._hold(event_id)
        if event_id < expected:
            return False
        expected += 1
        beyond = self.beyond
        if beyond:
            while expected in beyond:
                beyond.remove(expected)
                expected += 1
            if not beyond:
                self.beyond = None
        if first:
            self.expected = expected
        elif self.others is not None:
            self.others[emitter] = expected
        return True

    def _hold(self, event_id: int) -> bool:
        if self.beyond is None:
            self.beyond = set()
        elif event_id in self.beyond:
            return False
        self.beyond.add(event_id)
        return True


class Attempt(Struct, gc=False):
    """One attempt at a node; `row` is its row in the tables, `changed` marks it as outdated.

    A node's attempts are a linked list: `earlier` is the attempt with the next lower number.
    `counted_as` is the status under which the run counts the node, by its last attempt.
    """

    name: str
    number: int
    earlier: "Attempt | None" = None
    started: NodeStartedFacts | None = None
    started_at: Stamp = NO_STAMP
    finished: NodeFinishedFacts | None = None
    finished_at: Stamp = NO_STAMP
    amounts: Amounts = NO_AMOUNTS
    error: ErrorFacts | None = None
    status: str = "pending"
    counted_as: str | None = None
    changed: bool = False
    row: NodeRow | None = None


class RunState(Struct, gc=False):
    """Everything that is known of one run, without payloads; `row` is its row in the tables.

    A msgspec struct is created in a third of the time. Neither it nor its parts are in a cycle, so
    the garbage collector need not track them. `batch` is the number of the last batch that touched
    the run.
    """

    shard: int
    key: bytes
    id: str
    external_id: str | None
    seen: EventIdSet = field(default_factory=EventIdSet)
    created_us: int = NEVER
    last_event_us: int = -NEVER
    lost_us: int = -NEVER - 1
    begun: bool = False
    has_output: bool = False
    """Whether log lines came since the rows were derived: watchers get them, no row changes."""
    queued: RunStartFacts | None = None
    queued_at: Stamp = NO_STAMP
    started: RunStartFacts | None = None
    started_at: Stamp = NO_STAMP
    ended: CompletedFacts | FailedFacts | CancelledFacts | None = None
    ended_at: Stamp = NO_STAMP
    ended_as: str = ""
    error: ErrorFacts | None = None
    tags: dict[str, tuple[Stamp, str | None]] | None = None
    annotated: Amounts = NO_AMOUNTS
    tokens_in: int = 0
    tokens_out: int = 0
    cost_nano_usd: int = 0
    nodes: dict[str, Attempt] = field(default_factory=dict)
    node_counts: dict[str, int] = field(default_factory=dict)
    plans: dict[str, tuple[Stamp, PlannedNode]] | None = None
    n_attempts: int = 0
    extra_bytes: int = 0
    """What names, tags, plans, parents and messages take in memory (`state_bytes`)."""
    changed: list[Attempt] = field(default_factory=list)
    row: RunRow | None = None
    batch: int = 0
    cached_bytes: int = 0
    """Its size when the cache last counted it."""

    @property
    def is_lost(self) -> bool:
        """Return whether the run has no end and no sign of life after its `lost` event."""
        return self.lost_us >= self.last_event_us and self.ended is None

    def attempt(self, name: str, number: int) -> Attempt:
        """Return this attempt; a new one must be touched by the caller."""
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
        """Yield a node's attempts, the last one first."""
        attempt = self.nodes.get(name)
        while attempt is not None:
            yield attempt
            attempt = attempt.earlier

    def touch(self, attempt: Attempt) -> None:
        """Mark an attempt whose row is outdated."""
        if not attempt.changed:
            attempt.changed = True
            self.changed.append(attempt)

    def take_changed(self) -> list[Attempt]:
        """Return the attempts with outdated rows; afterwards `node_counts` is up to date."""
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


RUN_BYTES: Final = 1900
"""A run without nodes: its state, its row and its entry in the cache."""
ATTEMPT_BYTES: Final = 1150
"""An attempt at a node: its facts, its row and its entry in the run."""
TAG_BYTES: Final = 150
"""A tag beside its name and value: it is in the state and in the row."""
PLAN_BYTES: Final = 350
"""A planned node beside its names."""
EVENT_ID_BYTES: Final = 100
"""An event id that is held one by one, or an emitter."""
_ITEM_BYTES: Final = 8


def state_bytes(run: RunState) -> int:
    """Return how many bytes this run takes in memory: an estimate that is cheap to keep.

    A run and an attempt have a fixed part, measured with typical names. The variable part (names,
    tags, plans, parents, messages) is `extra_bytes`: the reducers add what they store and subtract
    what it replaces, so that no state is ever walked to be measured.
    """
    size = RUN_BYTES + run.n_attempts * ATTEMPT_BYTES + run.extra_bytes
    seen = run.seen
    if seen.beyond is not None or seen.others is not None:
        size += (len(seen.beyond or ()) + len(seen.others or ())) * EVENT_ID_BYTES
    return size


def start_bytes(fact: RunStartFacts | None) -> int:
    """Return the bytes of the names in `queued` or `started`; 0 without one."""
    if fact is None:
        return 0
    names = (fact.workflow, fact.project, fact.user, fact.session, fact.parent_run)
    trigger = 0 if fact.trigger is None else getsizeof(fact.trigger.type)
    return trigger + sum(getsizeof(name) for name in names if name is not None)


def node_bytes(fact: NodeStartedFacts | None) -> int:
    """Return the bytes of the names of other nodes in `node_started`; 0 without any."""
    if fact is None or not fact.parents:
        return 0
    return _names_bytes(fact.parents)


def plan_bytes(plan: PlannedNode) -> int:
    """Return the bytes of a planned node."""
    return PLAN_BYTES + getsizeof(plan.node) + _names_bytes(plan.parents)


def tag_bytes(name: str, value: str | None) -> int:
    """Return the bytes of a tag."""
    return TAG_BYTES + getsizeof(name) + getsizeof(value)


def error_bytes(error: ErrorFacts | None) -> int:
    """Return the bytes of a stored error; 0 without one."""
    if error is None:
        return 0
    return getsizeof(error.type) + getsizeof(error.message) + getsizeof(error.node)


def _names_bytes(names: list[str]) -> int:
    return sum(map(getsizeof, names)) + _ITEM_BYTES * len(names)

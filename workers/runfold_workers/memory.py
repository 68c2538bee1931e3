"""The runs of late, held in memory so that a steady batch need not read them.

Invariant: what is remembered of a run is the fold of all its events in the ledger, and the rows
that the tables have of it. It is a cache of the ledger, so it may be dropped at any time, and it
must be dropped when a batch was not committed.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from runfold.codec import decode_body
from runfold.events import Event, Logged
from runfold.ids import is_own_id, run_key
from runfold_storage.ledger import StoredEvent
from runfold_storage.rows import NodeRow, RunRow

from .images import node_row, run_row
from .state import RunState

RunRef = tuple[int, UUID]
"""(shard, run key)."""

_LOG_LINE: Final = Logged(text="")
"""Stands for a log line whose text was not loaded: the fold does not look at it."""


class Loaded(NamedTuple):
    """What storage knows of runs that are not remembered."""

    events: Iterable[StoredEvent]
    tombstones: set[RunRef]


Load = Callable[[Sequence[RunRef]], Loaded]


class RememberedRun:
    """A run's state, and the rows that follow from it."""

    __slots__ = ("counted_weight", "nodes", "row", "state")

    def __init__(self, state: RunState) -> None:
        self.counted_weight = 0
        self.state = state
        self.row: RunRow | None = None
        self.nodes: dict[tuple[str, int], NodeRow] = {}

    def settle(self) -> dict[tuple[str, int], NodeRow | None]:
        """Bring the rows up to the state; returns the nodes' rows that were replaced."""
        state = self.state
        self.row = run_row(state)
        replaced = {changed: self.nodes.get(changed) for changed in state.changed_nodes}
        for changed in replaced:
            self.nodes[changed] = node_row(state, *changed)
        state.changed_nodes.clear()
        return replaced

    @property
    def weight(self) -> int:
        return 1 + len(self.nodes)


class Memory:
    """At most `max_weight` of runs: each weighs 1, and 1 more for each attempt at a node."""

    def __init__(self, load: Load, max_weight: int) -> None:
        self._load = load
        self._max_weight = max_weight
        self._weight = 0
        self._runs: OrderedDict[tuple[int, str], RememberedRun] = OrderedDict()

    def recall(self, wanted: Collection[tuple[int, str]]) -> dict[tuple[int, str], RememberedRun]:
        """These runs, each by shard and id, from memory or folded again from the ledger.

        Deleted ones are left out.
        """
        missing = [each for each in wanted if each not in self._runs]
        if missing:
            self._refold(missing)
        recalled = {}
        for each in wanted:
            run = self._runs.get(each)
            if run is not None:
                self._runs.move_to_end(each)
                recalled[each] = run
        return recalled

    def shrink(self, grown: Iterable[RememberedRun]) -> None:
        """Weigh the runs that may have grown, and forget those that were quiet for longest."""
        for run in grown:
            self._weight += run.weight - run.counted_weight
            run.counted_weight = run.weight
        while self._weight > self._max_weight and self._runs:
            _, forgotten = self._runs.popitem(last=False)
            self._weight -= forgotten.counted_weight

    def forget(self, shard: int | None = None) -> None:
        """Drop what is remembered of a shard, or everything."""
        for ref in [ref for ref in self._runs if shard is None or ref[0] == shard]:
            self._weight -= self._runs.pop(ref).counted_weight

    def _refold(self, missing: Sequence[tuple[int, str]]) -> None:
        keys = {(shard, run_key(run_id)): run_id for shard, run_id in missing}
        events, tombstones = self._load(list(keys))
        found: dict[RunRef, RememberedRun] = {}
        for ref, run_id in keys.items():
            if ref not in tombstones:
                shard, key = ref
                given_id = run_id if is_own_id(key) else None
                found[ref] = RememberedRun(RunState(shard, key, given_id))
        for stored in events:
            run = found.get((stored.shard, stored.run))
            if run is not None and run.state.seen.add(stored.id):
                run.state.apply(_event(stored), stored.id, stored.at_us)
        for ref, run in found.items():
            run.settle()
            self._runs[ref[0], keys[ref]] = run


def _event(stored: StoredEvent) -> Event:
    return _LOG_LINE if stored.type == "logged" else decode_body(stored.type, stored.body)

"""The runs of late, held in memory so that a steady batch need not read them.

Invariant: what is remembered of a run is the fold of all its events in the ledger, and the rows
that the tables have of it. It is a cache of the ledger, so it may be dropped at any time, and it
must be dropped when a batch was not committed.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from runfold.codec import decode_body
from runfold.events import Event, Logged
from runfold.ids import is_own_id
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
        self._runs: OrderedDict[RunRef, RememberedRun] = OrderedDict()

    def recall(self, run_ids: Mapping[RunRef, str]) -> dict[RunRef, RememberedRun]:
        """These runs, from memory or folded again from the ledger; deleted ones are left out."""
        missing = [ref for ref in run_ids if ref not in self._runs]
        if missing:
            self._refold(missing, run_ids)
        recalled = {}
        for ref in run_ids:
            if ref in self._runs:
                self._runs.move_to_end(ref)
                recalled[ref] = self._runs[ref]
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

    def _refold(self, missing: Sequence[RunRef], run_ids: Mapping[RunRef, str]) -> None:
        events, tombstones = self._load(missing)
        found = {}
        for ref in missing:
            if ref not in tombstones:
                shard, key = ref
                given_id = run_ids[ref] if is_own_id(key) else None
                found[ref] = RememberedRun(RunState(shard, key, given_id))
        for stored in events:
            run = found.get((stored.shard, stored.run))
            if run is not None and run.state.seen.add(stored.id):
                run.state.apply(_event(stored), stored.id, stored.at_us)
        for run in found.values():
            run.settle()
        self._runs.update(found)


def _event(stored: StoredEvent) -> Event:
    return _LOG_LINE if stored.type == "logged" else decode_body(stored.type, stored.body)

"""How many bytes the state of a run takes: an estimate that is cheap to keep.

A run and an attempt at a node have a fixed part, measured with typical names. The variable part
(names, tags, plans, parents, messages) is `RunState.extra_bytes`: the reducers add what they store
and subtract what it replaces, so that no state is ever walked to be measured.
"""

from sys import getsizeof
from typing import Final

from runfold.protocol.events import PlannedNode

from .event_facts import ErrorFacts, NodeStartedFacts, RunStartFacts
from .run_state import RunState

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
    """Return how many bytes this run takes in memory."""
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

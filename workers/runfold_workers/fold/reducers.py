"""What each type of event does to the state of its run: the rules by which slots are won.

This is the innermost loop of Runfold. A slot holds the fact of the event that won it; `projection`
derives everything else, once a batch.
"""

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from runfold.protocol.codec import TYPES
from runfold.protocol.events import MAX_NAME, PlannedNode, Tags

from .event_facts import (
    HEARTBEAT,
    LOST,
    AnnotatedFacts,
    CancelledFacts,
    CompletedFacts,
    ErrorFacts,
    Fact,
    FailedFacts,
    NodeFinishedFacts,
    NodeStartedFacts,
    NoFacts,
    RunStartFacts,
)
from .run_state import (
    NO_AMOUNTS,
    RunState,
    Stamp,
    amounts_of,
    error_bytes,
    node_bytes,
    plan_bytes,
    start_bytes,
    tag_bytes,
)

MAX_MESSAGE: Final = 2000
"""Characters of an error's message that summaries keep; the ledger has it whole."""

Reducer = Callable[[RunState, Stamp, Any], None]


def apply(run: RunState, kind: int, at_us: int, event_id: int, fact: Fact) -> None:
    """Take one more event into account; `kind` is the index of its type in `TYPES`."""
    if at_us > run.last_event_us:
        run.last_event_us = at_us
    if kind == HEARTBEAT:  # not in the ledger, so nothing else may depend on it
        return
    if kind == LOST:
        run.lost_us = max(at_us, run.lost_us)
        return
    if at_us < run.created_us:
        run.created_us = at_us
    REDUCERS[kind](run, (at_us, event_id), fact)


def apply_liveness_event(run: RunState, kind: int, at_us: int, fact: Fact) -> bool:
    """Take a heartbeat or `lost` into account; return whether it belongs into the ledger.

    A fold of the ledger must reach the same state. So a `lost` event is stored unless a later sign
    of life is known, and a heartbeat only if it revokes a `lost`.
    """
    belongs = at_us >= run.last_event_us if kind == LOST else run.is_lost and at_us > run.lost_us
    apply(run, kind, at_us, 0, fact)
    return belongs


def _queued(run: RunState, stamp: Stamp, fact: RunStartFacts) -> None:
    if stamp < run.queued_at:
        kept = _without_lists(fact)
        run.extra_bytes += start_bytes(kept) - start_bytes(run.queued)
        run.queued, run.queued_at = kept, stamp
    _begin(run, stamp, fact)


def _started(run: RunState, stamp: Stamp, fact: RunStartFacts) -> None:
    run.begun = True
    if stamp < run.started_at:
        kept = _without_lists(fact)
        run.extra_bytes += start_bytes(kept) - start_bytes(run.started)
        run.started, run.started_at = kept, stamp
    _begin(run, stamp, fact)


def _without_lists(fact: RunStartFacts) -> RunStartFacts:
    """Return what the slot keeps: tags and plans have slots of their own."""
    if fact.tags is None and fact.nodes is None:
        return fact
    return replace(fact, tags=None, nodes=None)


def _begin(run: RunState, stamp: Stamp, fact: RunStartFacts) -> None:
    if fact.nodes:
        _plan(run, stamp, fact.nodes)
    if fact.tags:
        _tag(run, stamp, fact.tags)


def _plan(run: RunState, stamp: Stamp, planned: list[PlannedNode]) -> None:
    """Add to the union of all plans; a planned node keeps its first attempt for good.

    So no row ever vanishes again, whichever plan or attempt comes first.
    """
    plans = run.plans
    if plans is None:
        plans = run.plans = {}
    for plan in planned:
        run.touch(run.attempt(plan.node, 1))
        known = plans.get(plan.node)
        if known is None or stamp < known[0]:
            run.extra_bytes += plan_bytes(plan) - (plan_bytes(known[1]) if known else 0)
            plans[plan.node] = (stamp, plan)
            for attempt in run.attempts(plan.node):
                run.touch(attempt)


def _node_started(run: RunState, stamp: Stamp, fact: NodeStartedFacts) -> None:
    run.begun = True
    attempt = run.nodes.get(fact.node)
    if attempt is None or attempt.number != fact.attempt:
        attempt = run.attempt(fact.node, fact.attempt)
    if stamp < attempt.started_at:
        if fact.parents or attempt.started is not None:
            run.extra_bytes += node_bytes(fact) - node_bytes(attempt.started)
        attempt.started, attempt.started_at = fact, stamp
        if attempt.finished is None:
            attempt.status = "running"
        if not attempt.changed:
            run.touch(attempt)


def _node_finished(run: RunState, stamp: Stamp, fact: NodeFinishedFacts) -> None:
    run.begun = True
    attempt = run.nodes.get(fact.node)
    if attempt is None or attempt.number != fact.attempt:
        attempt = run.attempt(fact.node, fact.attempt)
    if stamp > attempt.finished_at:
        return
    if fact.error is not None or attempt.error is not None:
        error = _summary_of(fact.error)
        run.extra_bytes += error_bytes(error) - error_bytes(attempt.error)
        attempt.error = error
        if error is not fact.error:
            fact = replace(fact, error=error)
    attempt.finished, attempt.finished_at = fact, stamp
    attempt.status = fact.status or ("completed" if fact.error is None else "failed")
    if fact.usage is not None or attempt.amounts is not NO_AMOUNTS:
        was, now = attempt.amounts, amounts_of(fact.usage)
        attempt.amounts = now
        run.tokens_in += now[0] - was[0]
        run.tokens_out += now[1] - was[1]
        run.cost_nano_usd += now[2] - was[2]
    if not attempt.changed:
        run.touch(attempt)


def _logged(run: RunState, _stamp: Stamp, _fact: NoFacts) -> None:
    run.begun = run.has_output = True


def _annotated(run: RunState, stamp: Stamp, fact: AnnotatedFacts) -> None:
    if fact.tags:
        _tag(run, stamp, fact.tags)
    if fact.usage is not None:
        early, late = run.annotated, amounts_of(fact.usage)
        run.annotated = (early[0] + late[0], early[1] + late[1], early[2] + late[2])


def _end(status: str) -> Reducer:
    def end(
        run: RunState, stamp: Stamp, fact: CompletedFacts | FailedFacts | CancelledFacts
    ) -> None:
        if stamp < run.ended_at:
            if fact.error is not None or run.error is not None:
                error = _summary_of(fact.error)
                run.extra_bytes += error_bytes(error) - error_bytes(run.error)
                run.error = error
                if error is not fact.error:
                    fact = replace(fact, error=error)
            run.ended, run.ended_at, run.ended_as = fact, stamp, status

    return end


_REDUCER_OF: Final[dict[str, Reducer]] = {
    "queued": _queued,
    "started": _started,
    "node_started": _node_started,
    "node_finished": _node_finished,
    "logged": _logged,
    "annotated": _annotated,
    "heartbeat": _logged,  # never called: see `apply`
    "completed": _end("completed"),
    "failed": _end("failed"),
    "cancelled": _end("cancelled"),
    "lost": _logged,  # never called: see `apply`
}
REDUCERS: Final = tuple(_REDUCER_OF[name] for name in TYPES)
"""What an event of each type does to its run, by the index of the type in `TYPES`."""


def _tag(run: RunState, stamp: Stamp, tags: Tags) -> None:
    known = run.tags
    if known is None:
        known = run.tags = {}
    added = 0
    for name, value in tags.items():
        was = known.get(name)
        if was is None or was[0] < stamp:
            text = _tag_text(value)
            added += tag_bytes(name, text) - (tag_bytes(name, was[1]) if was else 0)
            known[name] = (stamp, text)
    run.extra_bytes += added


def _summary_of(error: ErrorFacts | None) -> ErrorFacts | None:
    """Return what summaries keep of an error: strings of a bounded length."""
    if error is None or (
        len(error.type or "") <= MAX_NAME
        and len(error.message or "") <= MAX_MESSAGE
        and len(error.node or "") <= MAX_NAME
    ):
        return error
    return ErrorFacts(
        type=error.type and error.type[:MAX_NAME],
        message=error.message and error.message[:MAX_MESSAGE],
        node=error.node and error.node[:MAX_NAME],
    )


def _tag_text(value: str | float | bool | None) -> str | None:
    """Return a tag as text, so that a filter need not know what the runner's type was."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)

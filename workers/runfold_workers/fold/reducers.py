"""What each type of event does to the state of its run: the rules by which slots are won.

This is the innermost loop of Runfold: a slot holds what the event said as it was read, and
everything derived is left to `images`, which is asked once a batch.
"""

from collections.abc import Callable
from typing import Any, Final

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
from .run_state import NO_AMOUNTS, RunState, Stamp, amounts_of

MAX_MESSAGE: Final = 2000
"""Characters of an error's message that summaries keep; the ledger has it whole."""

Rule = Callable[[RunState, Stamp, Any], None]


def apply(run: RunState, kind: int, at_us: int, event_id: int, fact: Fact) -> None:
    """Take one more event into account; `kind` is the place of its type in `TYPES`."""
    if at_us > run.last_event_us:
        run.last_event_us = at_us
    if kind == HEARTBEAT:  # not in the ledger, so it must not tell anything else
        return
    if kind == LOST:
        run.lost_us = max(at_us, run.lost_us)
        return
    if at_us < run.created_us:
        run.created_us = at_us
    RULES[kind](run, (at_us, event_id), fact)


def apply_liveness_event(run: RunState, kind: int, at_us: int, fact: Fact) -> bool:
    """Take a heartbeat or `lost` into account; whether the ledger has to know of it.

    What it is not told must not matter to a fold of it: so it gets each `lost` that nothing
    known refutes, and of the heartbeats, which would be most of it, those that take one back.
    """
    is_news = at_us >= run.last_event_us if kind == LOST else run.is_lost and at_us > run.lost_us
    apply(run, kind, at_us, 0, fact)
    return is_news


def _queued(run: RunState, stamp: Stamp, said: RunStartFacts) -> None:
    if stamp < run.queued_at:
        run.queued, run.queued_at = said, stamp
    _begin(run, stamp, said)


def _started(run: RunState, stamp: Stamp, said: RunStartFacts) -> None:
    run.begun = True
    if stamp < run.started_at:
        run.started, run.started_at = said, stamp
    _begin(run, stamp, said)


def _begin(run: RunState, stamp: Stamp, said: RunStartFacts) -> None:
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


def _node_started(run: RunState, stamp: Stamp, said: NodeStartedFacts) -> None:
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


def _node_finished(run: RunState, stamp: Stamp, said: NodeFinishedFacts) -> None:
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


def _logged(run: RunState, _stamp: Stamp, _said: NoFacts) -> None:
    run.begun = run.has_output = True


def _annotated(run: RunState, stamp: Stamp, said: AnnotatedFacts) -> None:
    if said.tags:
        _tag(run, stamp, said.tags)
    if said.usage is not None:
        early, late = run.annotated, amounts_of(said.usage)
        run.annotated = (early[0] + late[0], early[1] + late[1], early[2] + late[2])


def _end(status: str) -> Rule:
    def end(
        run: RunState, stamp: Stamp, said: CompletedFacts | FailedFacts | CancelledFacts
    ) -> None:
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


def _short(error: ErrorFacts) -> ErrorFacts:
    """What a summary keeps of an error: strings of a bounded length."""
    return ErrorFacts(
        type=error.type and error.type[:MAX_NAME],
        message=error.message and error.message[:MAX_MESSAGE],
        node=error.node and error.node[:MAX_NAME],
    )


def _tag_text(value: str | float | bool | None) -> str | None:
    """Tags are text, so that a filter need not know what the runner's type was."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)

"""The projection: a run's rows, its status included, as a pure function of its state."""

from typing import Final

from runfold_storage.parameters import UNKNOWN
from runfold_storage.records.rows import NodeRow, RunRow

from .event_facts import RunStartFacts
from .run_state import NEVER, Amounts, Attempt, RunState, to_nano_usd, to_us

UNNAMED: Final = "unnamed"
"""The workflow of a run whose `queued` and `started` have none."""
DEFAULT_PROJECT: Final = "default"

_NOTHING: Final = RunStartFacts()


def run_row(state: RunState) -> RunRow | None:
    """Return the summary of a run, its status included; None while it has only heartbeats."""
    if state.created_us == NEVER:
        return None
    started = state.started or _NOTHING
    queued = state.queued or _NOTHING
    if state.started is None and state.queued is None:
        project = workflow = UNKNOWN
    else:
        project = _known(started.project) or _known(queued.project) or DEFAULT_PROJECT
        workflow = _known(started.workflow) or _known(queued.workflow) or UNNAMED
    ended = state.ended
    error = state.error
    tags = None
    if state.tags:
        present = {name: text for name, (_, text) in sorted(state.tags.items()) if text is not None}
        tags = present or None
    input_tokens, output_tokens, cost_nano_usd = _run_amounts(state)
    count = state.node_counts.get
    trigger = started.trigger or queued.trigger
    return RunRow(
        state.shard,
        state.key,
        state.external_id,
        project,
        workflow,
        _status(state),
        started.attempt or queued.attempt or 1,
        started.parent_run or queued.parent_run,
        trigger.type if trigger else None,
        started.user or queued.user,
        started.session or queued.session,
        tags,
        state.created_us,
        state.queued_at[0] if state.queued else None,
        state.started_at[0] if state.started else None,
        state.ended_at[0] if ended else None,
        state.last_event_us,
        _run_duration(state),
        input_tokens,
        output_tokens,
        cost_nano_usd,
        len(state.nodes),
        count("pending", 0),
        count("running", 0),
        count("completed", 0),
        count("failed", 0),
        count("skipped", 0),
        count("cancelled", 0),
        ended.exit_code if ended else None,
        error.type if error else None,
        error.message if error else None,
        error.node if error else None,
    )


def node_row(state: RunState, attempt: Attempt) -> NodeRow:
    """Return the summary of one attempt at a node."""
    name = attempt.name
    started, finished = attempt.started, attempt.finished
    shown_name = node_type = parents = started_us = finished_us = duration_us = None
    if started is not None:
        shown_name, node_type, parents = started.name, started.node_type, started.parents
        started_us = attempt.started_at[0]
    if state.plans and name in state.plans:
        _, plan = state.plans[name]
        shown_name = shown_name or plan.name
        node_type = node_type or plan.node_type
        parents = plan.parents if parents is None else parents
    if finished is not None:
        finished_us = attempt.finished_at[0]
        if finished.duration_ms is not None:
            duration_us = to_us(finished.duration_ms)
        elif started_us is not None:
            duration_us = max(finished_us - started_us, 0)
    input_tokens, output_tokens, cost_nano_usd = attempt.amounts
    error = attempt.error
    return NodeRow(
        state.shard,
        state.key,
        name,
        attempt.number,
        shown_name or name,
        attempt.status,
        node_type,
        parents,
        started_us,
        finished_us,
        duration_us,
        input_tokens,
        output_tokens,
        cost_nano_usd,
        error.type if error else None,
        error.message if error else None,
    )


def _known(name: str | None) -> str | None:
    return None if name == UNKNOWN else name


def _status(state: RunState) -> str:
    if state.ended_as:
        return state.ended_as
    return "lost" if state.is_lost else "running" if state.begun else "queued"


def _run_duration(state: RunState) -> int | None:
    """Return the end's own duration, else start to end; never negative, since clocks jump."""
    if state.ended is None:
        return None
    if state.ended.duration_ms is not None:
        return to_us(state.ended.duration_ms)
    if state.started is None:
        return None
    return max(state.ended_at[0] - state.started_at[0], 0)


def _run_amounts(state: RunState) -> Amounts:
    """Return the end's own total if it has one, else the sum over nodes, plus annotations."""
    usage = state.ended.usage if state.ended else None
    tokens_in, tokens_out, cost = state.tokens_in, state.tokens_out, state.cost_nano_usd
    if usage is not None:
        tokens_in = tokens_in if usage.input_tokens is None else usage.input_tokens
        tokens_out = tokens_out if usage.output_tokens is None else usage.output_tokens
        cost = cost if usage.cost_usd is None else to_nano_usd(usage.cost_usd)
    late = state.annotated
    return tokens_in + late[0], tokens_out + late[1], cost + late[2]

"""From a run's state to its rows: the projection, a pure function of the state."""

from typing import Final

from runfold_storage.rows import NodeRow, RunRow

from .state import NO_AMOUNTS, Amounts, Begin, RunState, to_nano_usd

UNNAMED: Final = "unnamed"
"""The workflow of a run of which no `queued` or `started` has come yet."""
DEFAULT_PROJECT: Final = "default"

_NOTHING: Final = Begin((0, 0), None, None, None, None, None, None, None)


def run_row(state: RunState) -> RunRow | None:
    """The summary of a run; None as long as nothing but heartbeats has come."""
    if state.created_us is None:
        return None
    started = state.started or _NOTHING
    queued = state.queued or _NOTHING
    ended = state.ended
    error = ended.error if ended else None
    amounts = _run_amounts(state)
    counts = state.node_counts
    return RunRow(
        shard=state.shard,
        run=state.key,
        given_id=state.given_id,
        project=started.project or queued.project or DEFAULT_PROJECT,
        workflow=started.workflow or queued.workflow or UNNAMED,
        status=_status(state),
        attempt=started.attempt or queued.attempt or 1,
        parent_run=started.parent_run or queued.parent_run,
        trigger_type=started.trigger_type or queued.trigger_type,
        user=started.user or queued.user,
        session=started.session or queued.session,
        tags={name: text for name, (_, text) in sorted(state.tags.items()) if text is not None}
        or None,
        created_us=state.created_us,
        queued_us=state.queued.stamp[0] if state.queued else None,
        started_us=state.started.stamp[0] if state.started else None,
        finished_us=ended.stamp[0] if ended else None,
        seen_us=state.seen_us,
        duration_us=_run_duration(state),
        input_tokens=amounts.input_tokens,
        output_tokens=amounts.output_tokens,
        cost_nano_usd=amounts.cost_nano_usd,
        nodes_total=len(state.nodes),
        nodes_pending=counts.get("pending", 0),
        nodes_running=counts.get("running", 0),
        nodes_completed=counts.get("completed", 0),
        nodes_failed=counts.get("failed", 0),
        nodes_skipped=counts.get("skipped", 0),
        nodes_cancelled=counts.get("cancelled", 0),
        exit_code=ended.exit_code if ended else None,
        error_type=error.type if error else None,
        error_message=error.message if error else None,
        error_node=error.node if error else None,
    )


def node_row(state: RunState, name: str, number: int) -> NodeRow:
    """The summary of one attempt at a node."""
    node = state.nodes[name]
    attempt = node.attempts[number]
    started, finished = attempt.started, attempt.finished
    plan = node.plan[1] if node.plan else None
    shown_name = (started and started.name) or (plan and plan.name) or name
    node_type = (started and started.node_type) or (plan and plan.node_type)
    parents = started.parents if started and started.parents is not None else None
    if parents is None and plan:
        parents = plan.parents
    duration_us = finished.duration_us if finished else None
    if duration_us is None and finished and started:
        duration_us = max(finished.stamp[0] - started.stamp[0], 0)
    amounts = finished.amounts if finished else NO_AMOUNTS
    error = finished.error if finished else None
    return NodeRow(
        shard=state.shard,
        run=state.key,
        node=name,
        attempt=number,
        name=shown_name,
        status=attempt.status,
        node_type=node_type or None,
        parents=parents,
        started_us=started.stamp[0] if started else None,
        finished_us=finished.stamp[0] if finished else None,
        duration_us=duration_us,
        input_tokens=amounts.input_tokens,
        output_tokens=amounts.output_tokens,
        cost_nano_usd=amounts.cost_nano_usd,
        error_type=error.type if error else None,
        error_message=error.message if error else None,
    )


def _status(state: RunState) -> str:
    if state.ended is not None:
        return state.ended.status
    return "running" if state.begun else "queued"


def _run_duration(state: RunState) -> int | None:
    """What the end says, else from start to end; never negative, for clocks jump."""
    if state.ended is None:
        return None
    if state.ended.duration_us is not None:
        return state.ended.duration_us
    if state.started is None:
        return None
    return max(state.ended.stamp[0] - state.started.stamp[0], 0)


def _run_amounts(state: RunState) -> Amounts:
    """The end's own total where it gives one, else the sum over nodes; annotations add to it."""
    usage = state.ended.usage if state.ended else None
    totals = Amounts(*state.node_amounts)
    if usage is not None:
        totals = Amounts(
            totals.input_tokens if usage.input_tokens is None else usage.input_tokens,
            totals.output_tokens if usage.output_tokens is None else usage.output_tokens,
            totals.cost_nano_usd if usage.cost_usd is None else to_nano_usd(usage.cost_usd),
        )
    return Amounts(*(total + late for total, late in zip(totals, state.annotated, strict=True)))

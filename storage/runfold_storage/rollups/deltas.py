"""Statistics as differences: when a row changes, its rollups get new minus old.

A run counts in the hour of its first event, and its nodes count in the hour of their run, so that
one row of the rollups always speaks of the same runs. Nodes count under their name.
"""

from collections.abc import Iterable
from operator import attrgetter
from typing import Final

from runfold_storage.records.rollup import RollupDelta, RollupKey
from runfold_storage.records.rows import NodeRow, RunRow

HOUR_US: Final = 3_600_000_000

RollupDeltas = dict[RollupKey, RollupDelta]


Scope = tuple[str, str, int]
"""What the rollups of a run and of its nodes have in common: workflow, project, hour."""


def scope_of(run: RunRow) -> Scope:
    """Where a run counts."""
    return run.workflow, run.project, run.created_us - run.created_us % HOUR_US


def add_run(differences: RollupDeltas, scope: Scope, run: RunRow, sign: int) -> None:
    """Count a run once more (`sign` 1) or take it out again (-1)."""
    workflow, project, hour_us = scope
    _add(differences, (workflow, project, "", hour_us, run.status, run.shard), run, sign)


def change_run(differences: RollupDeltas, scope: Scope, old: RunRow, new: RunRow) -> None:
    """Count a run as it is now and no longer as it was, in the scope that it keeps."""
    if _figures(old) != _figures(new):  # most changes are of what is not counted
        add_run(differences, scope, old, -1)
        add_run(differences, scope, new, 1)


_figures: Final = attrgetter(
    "status", "input_tokens", "output_tokens", "cost_nano_usd", "duration_us"
)


def add_node(differences: RollupDeltas, scope: Scope, node: NodeRow, sign: int) -> None:
    """The same for an attempt at a node."""
    workflow, project, hour_us = scope
    _add(differences, (workflow, project, node.name, hour_us, node.status, node.shard), node, sign)


def _add(
    differences: RollupDeltas,
    key: tuple[str, str, str, int, str, int],
    row: RunRow | NodeRow,
    sign: int,
) -> None:
    difference = differences.get(key)  # type: ignore[call-overload]  # equal to a StatsKey
    if difference is None:
        difference = differences[RollupKey._make(key)] = RollupDelta()
    difference.n += sign
    difference.input_tokens += sign * row.input_tokens
    difference.output_tokens += sign * row.output_tokens
    difference.cost_nano_usd += sign * row.cost_nano_usd
    if row.duration_us is not None:
        durations = difference.durations
        durations[row.duration_us] = durations.get(row.duration_us, 0) + sign


def add_whole(
    differences: RollupDeltas, run: RunRow | None, nodes: Iterable[NodeRow], sign: int
) -> None:
    """A run and all attempts at its nodes; without a run they count nowhere."""
    if run is not None:
        scope = scope_of(run)
        add_run(differences, scope, run, sign)
        for node in nodes:
            add_node(differences, scope, node, sign)

"""Deltas: when a row changes, its rollup gets the new values minus the old ones.

A run counts in the hour of its first event, and its nodes count in the hour of their run, so that a
row of the rollups always covers the same runs. Nodes count under their name.
"""

from collections.abc import Iterable
from operator import attrgetter
from typing import Final

from runfold_storage.records.rollup import RollupDelta, RollupKey
from runfold_storage.records.rows import NodeRow, RunRow

HOUR_US: Final = 3_600_000_000

RollupDeltas = dict[RollupKey, RollupDelta]


Scope = tuple[str, str, int]
"""(workflow, project, hour in µs): what the rollups of a run and of its nodes share."""


def scope_of(run: RunRow) -> Scope:
    """Return the scope in which a run counts."""
    return run.workflow, run.project, run.created_us - run.created_us % HOUR_US


def add_run(differences: RollupDeltas, scope: Scope, run: RunRow, sign: int) -> None:
    """Add a run (`sign` 1) or remove it (-1)."""
    workflow, project, hour_us = scope
    _add(differences, (workflow, project, "", hour_us, run.status, run.shard), run, sign)


def change_run(differences: RollupDeltas, scope: Scope, old: RunRow, new: RunRow) -> None:
    """Replace the old values of a run by the new ones, in an unchanged scope."""
    if _figures(old) != _figures(new):  # most changes are of columns that do not count
        add_run(differences, scope, old, -1)
        add_run(differences, scope, new, 1)


_figures: Final = attrgetter(
    "status", "input_tokens", "output_tokens", "cost_nano_usd", "duration_us"
)


def add_node(differences: RollupDeltas, scope: Scope, node: NodeRow, sign: int) -> None:
    """Add an attempt at a node (`sign` 1) or remove it (-1)."""
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


def add_run_with_nodes(
    differences: RollupDeltas, run: RunRow | None, nodes: Iterable[NodeRow], sign: int
) -> None:
    """Add or remove a run and all attempts at its nodes; without a run, nodes do not count."""
    if run is not None:
        scope = scope_of(run)
        add_run(differences, scope, run, sign)
        for node in nodes:
            add_node(differences, scope, node, sign)

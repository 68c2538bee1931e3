"""Arrange nodes as a tree: each under its parent with the longest path from the start. Its other
parents are listed beside it. Pure."""

from collections.abc import Sequence
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from runfold_storage.read_models.summaries import NodeSummary


class Branch(NamedTuple):
    """A node, the lines that lead to it in the drawing, and its other parents."""

    guides: str
    node: NodeSummary
    also_after: list[str]


def grow(nodes: Sequence[NodeSummary]) -> list[Branch]:
    """Return the branches from top to bottom; nodes after a cycle of parents stand at the top."""
    by_name = {node.node: node for node in nodes}
    parents = {
        name: [each for each in node.parents if each in by_name] for name, node in by_name.items()
    }
    depths: dict[str, int] = {}
    sorter = TopologicalSorter(parents)
    with suppress(CycleError):  # the nodes before the cycle are still sorted
        sorter.prepare()
    while ready := sorter.get_ready():
        for name in ready:
            depths[name] = 1 + max((depths[each] for each in parents[name]), default=0)
        sorter.done(*ready)
    children: dict[str | None, list[NodeSummary]] = {}
    above: dict[str, str | None] = {}
    for name, node in by_name.items():
        lower = parents[name] if name in depths else []
        above[name] = max(lower, key=depths.__getitem__, default=None)
        children.setdefault(above[name], []).append(node)
    branches: list[Branch] = []
    waiting = [("", node, True) for node in reversed(children.get(None, []))]
    while waiting:
        indent, node, is_last = waiting.pop()
        parent = above[node.node]
        guides = "" if parent is None else indent + ("└─ " if is_last else "├─ ")
        others = [each for each in parents[node.node] if each != parent]
        branches.append(Branch(guides, node, others))
        below = children.get(node.node, [])
        further = "" if parent is None else indent + ("   " if is_last else "│  ")
        waiting += [(further, child, number == 0) for number, child in enumerate(reversed(below))]
    return branches

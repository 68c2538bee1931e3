"""Arrange nodes as a tree: each under its parent with the longest path from the start. Its other
parents are listed beside it. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from runfold_storage.read_models.summaries import NodeSummary


class Branch(NamedTuple):
    """A node, the lines that lead to it in the drawing, and its other parents."""

    guides: str
    node: NodeSummary
    also_after: list[str]


def grow(nodes: Sequence[NodeSummary]) -> list[Branch]:
    """Return the branches from top to bottom; cycles of parents are cut."""
    by_name = {node.node: node for node in nodes}
    depths: dict[str, int] = {}

    def depth(name: str) -> int:
        stack = [name]
        while stack:
            top = stack[-1]
            if depths.get(top, -1) > 0:
                stack.pop()
                continue
            parents = [each for each in by_name[top].parents if each in by_name]
            open_ = [each for each in parents if each not in depths]
            depths.setdefault(top, 0)  # in progress: meeting it again means a cycle
            if open_:
                stack += open_
                continue
            depths[top] = 1 + max((depths[each] for each in parents), default=0)
            stack.pop()
        return depths[name]

    children: dict[str | None, list[NodeSummary]] = {}
    above: dict[str, str | None] = {}
    for node in nodes:
        own = depth(node.node)
        lower = [each for each in node.parents if each in by_name and depth(each) < own]
        above[node.node] = max(lower, key=depth, default=None)
        children.setdefault(above[node.node], []).append(node)
    branches: list[Branch] = []
    waiting = [("", node, True) for node in reversed(children.get(None, []))]
    while waiting:
        indent, node, is_last = waiting.pop()
        parent = above[node.node]
        guides = "" if parent is None else indent + ("└─ " if is_last else "├─ ")
        others = [each for each in node.parents if each != parent and each in by_name]
        branches.append(Branch(guides, node, others))
        below = children.get(node.node, [])
        further = "" if parent is None else indent + ("   " if is_last else "│  ")
        waiting += [(further, child, number == 0) for number, child in enumerate(reversed(below))]
    return branches

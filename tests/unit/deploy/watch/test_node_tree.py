"""Nodes as a tree."""

from runfold_stack.watch.node_tree import grow
from watched_runs import node


def test_a_tree_puts_each_node_under_its_last_parent() -> None:
    """So that it stands below everything that it waits for; the others are named."""
    nodes = [
        node("report", "extract", "train"),
        node("extract"),
        node("clean", "extract"),
        node("train", "clean"),
        node("other", "not there"),
    ]

    assert [(each.guides, each.node.node, each.also_after) for each in grow(nodes)] == [
        ("", "extract", []),
        ("└─ ", "clean", []),
        ("   └─ ", "train", []),
        ("      └─ ", "report", ["extract"]),
        ("", "other", []),
    ]


def test_siblings_are_joined_by_a_line() -> None:
    """Also past what hangs below the first."""
    nodes = [node("a"), node("b", "a"), node("c", "b"), node("d", "a")]
    assert [each.guides + each.node.node for each in grow(nodes)] == [
        "a",
        "├─ b",
        "│  └─ c",
        "└─ d",
    ]


def test_a_circle_of_parents_shows_every_node_once() -> None:
    """It is not ours to judge what runners say."""
    nodes = [node("a", "c"), node("b", "a"), node("c", "b"), node("d", "d")]
    assert sorted(each.node.node for each in grow(nodes)) == ["a", "b", "c", "d"]


def test_a_long_chain_is_no_trouble() -> None:
    """Deeper than Python's stack."""
    nodes = [node(str(n), *([str(n - 1)] if n else [])) for n in reversed(range(3000))]
    assert [each.node.node for each in grow(nodes)] == [str(n) for n in range(3000)]

"""The size of a state follows what it holds, and nothing large is held without being counted."""

from itertools import count
from typing import Any

import msgspec
import pytest

from runfold.protocol.codec import TYPE_NUMBERS
from runfold_workers.fold.event_facts import read_fact
from runfold_workers.fold.reducers import MAX_MESSAGE, apply
from runfold_workers.fold.run_cache import Loaded, RunCache
from runfold_workers.fold.run_state import (
    ATTEMPT_BYTES,
    RUN_BYTES,
    TAG_BYTES,
    RunState,
    state_bytes,
)

_numbers = count(1)


def run_of(*events: tuple[str, dict[str, Any]]) -> RunState:
    run = RunState(0, b"\1" * 16, "run", None)
    for kind, body in events:
        fold(run, kind, body)
    return run


def fold(run: RunState, kind: str, body: dict[str, Any]) -> None:
    number, at = TYPE_NUMBERS[kind], next(_numbers)
    apply(run, number, at, at, read_fact(number, msgspec.json.encode(body)))


def test_tags_nodes_and_plans_are_counted() -> None:
    tags = {f"tag {number}": "value" for number in range(1000)}
    assert state_bytes(run_of(("annotated", {"tags": tags}))) > RUN_BYTES + 1000 * TAG_BYTES
    nodes = [("node_started", {"node": f"node {number}"}) for number in range(1000)]
    assert state_bytes(run_of(*nodes)) >= RUN_BYTES + 1000 * ATTEMPT_BYTES
    parents = [f"parent {number}" for number in range(1000)]
    assert state_bytes(run_of(("node_started", {"node": "n", "parents": parents}))) > 50_000
    planned = {"nodes": [{"node": "n", "parents": parents}]}
    assert state_bytes(run_of(("started", planned))) > 50_000


def test_a_replaced_value_counts_once() -> None:
    """A run that sets one tag a thousand times does not grow by that."""
    run = run_of(("annotated", {"tags": {"step": "x" * 1000}}))
    before = state_bytes(run)
    for _ in range(1000):
        fold(run, "annotated", {"tags": {"step": "y" * 1000}})
    assert state_bytes(run) == before
    fold(run, "annotated", {"tags": {"step": None}})
    assert state_bytes(run) < before - 900


@pytest.mark.parametrize(
    ("kind", "body"), [("failed", {}), ("node_finished", {"node": "n"})], ids=["run", "node"]
)
def test_a_state_keeps_no_more_of_a_message_than_its_row(kind: str, body: dict[str, Any]) -> None:
    run = run_of((kind, body | {"error": {"message": "x" * 100_000}}))
    fact = run.ended if kind == "failed" else run.nodes["n"].finished
    assert fact is not None
    assert fact.error is not None
    assert fact.error.message == "x" * MAX_MESSAGE
    assert MAX_MESSAGE < run.extra_bytes < 2 * MAX_MESSAGE


def test_a_start_is_kept_without_its_tags_and_plan() -> None:
    run = run_of(("started", {"tags": {"a": "b"}, "nodes": [{"node": "n"}], "user": "ada"}))
    assert run.started is not None
    assert (run.started.tags, run.started.nodes, run.started.user) == (None, None, "ada")
    assert run.tags is not None
    assert run.plans is not None


def test_the_cache_forgets_by_bytes_and_not_by_number() -> None:
    """One run with 40,000 tags outweighs a hundred others."""
    cache = RunCache(lambda _: Loaded([], set()), max_bytes=3_000_000)
    runs = [f"run {number}" for number in range(101)]
    cache.admit(0, runs)
    cache.look_up()
    states = [state for state in cache.recall(0, runs) if state is not None]
    for batch, state in enumerate(states, 1):
        state.batch = batch
    cache.weigh(states)
    cache.shrink(len(states))
    assert list(cache.uncached_runs(0, runs)) == []
    fold(states[0], "annotated", {"tags": {f"tag {number}": "value" for number in range(40_000)}})
    cache.weigh(states[:1])
    cache.shrink(len(states))
    assert list(cache.uncached_runs(0, runs)) == [0]

"""Thousands of histories full of faults: acknowledged events count, each of them once.

`PYTHONPATH=tests python -m simulator --seed N` plays one of them again.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.__main__ import find_failure
from simulator.world import World, simulate

pytestmark = pytest.mark.slow

CHUNKS, SEEDS = 10, 100
FIRSTS = range(0, CHUNKS * SEEDS, SEEDS)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What workers and producers say of their misfortunes would fill pages."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", FIRSTS)
def test_what_is_acknowledged_counts_once(first: int) -> None:
    """Live rows = rows folded from the ledger = the definition, whatever went wrong."""
    assert not find_failure(range(first, first + SEEDS))


def test_the_histories_are_full_of_faults() -> None:
    """Every kind of misfortune strikes in some of them, and most is folded while they do."""
    occurred: set[str] = set()
    folded = 0
    for seed in range(60):
        world = World(seed)
        world.play()
        occurred |= world.faults.occurred
        folded += len(world.database.tables.ledger)
    assert occurred == set(World(0).faults.rates.__dataclass_fields__)
    assert folded > 300


def test_a_seed_is_a_history() -> None:
    """The same one in every process, so that a failure can be seen again."""
    script = "import sys; from simulator.world import simulate; print(simulate(7).trace)"
    traces = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ
            | {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONHASHSEED": hash_},
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        ).stdout
        for hash_ in ("1", "2")
    }
    assert traces == {f"{simulate(7).trace}\n"}

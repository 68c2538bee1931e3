"""Numbers for the events of a run."""

import pytest

from runfold.delivery import process_hooks
from runfold.recording.event_writer import EventIdAllocator, EventIds


def test_the_opener_counts_from_0() -> None:
    """Emitter 0 is the process that made the run's id."""
    ids = EventIds(0)
    assert [ids.take() for _ in range(3)] == [0, 1, 2]


def test_everyone_else_counts_in_a_range_of_its_own() -> None:
    """Two processes that write to one run do not give the same number."""
    one, other = EventIds(), EventIds()
    assert one.take() >> 32 != other.take() >> 32
    assert one.take() & 0xFFFFFFFF == 1


def test_a_forked_child_counts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fork the numbers come from another emitter, and keep counting there."""
    ids = EventIds(0)
    ids.take()
    monkeypatch.setattr(process_hooks, "generation", process_hooks.generation + 1)
    first, second = ids.take(), ids.take()
    assert first >> 32 != 0
    assert second == first + 1


def test_a_run_keeps_its_numbers_until_it_is_forgotten() -> None:
    """Events of one run count up; an event after the end is from another emitter."""
    numbers = EventIdAllocator()
    first = numbers.take("r")
    assert numbers.take("r") == first + 1
    numbers.forget("r")
    assert numbers.take("r") >> 32 != first >> 32


def test_a_handles_numbers_are_used() -> None:
    """Events emitted beside a handle count in the same sequence."""
    numbers, ids = EventIdAllocator(), EventIds(0)
    numbers.add("r", ids)
    assert (numbers.take("r"), ids.take(), numbers.take("r")) == (0, 1, 2)


def test_the_memory_of_runs_is_bounded() -> None:
    """The oldest run is evicted, and continues as another emitter."""
    numbers = EventIdAllocator(max_runs=2)
    oldest = numbers.take("a")
    numbers.take("b")
    numbers.take("c")
    assert numbers.take("a") >> 32 != oldest >> 32

"""What happens to a process, told to those who have to know."""

import gc
import os

from runfold.delivery import process_hooks


class Resident:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def after_fork(self) -> None:
        self.heard.append("fork")

    def at_exit(self) -> None:
        self.heard.append("exit")


def test_residents_are_told_of_the_end() -> None:
    """Each one that asked is called."""
    resident = Resident()
    process_hooks.register(resident)
    process_hooks._end()
    assert resident.heard == ["exit"]


def test_only_a_forked_child_ends_abruptly() -> None:
    """A program does not; a process that was forked before our import does."""
    assert not process_hooks.ends_abruptly()
    pid = os.fork()
    if pid == 0:
        process_hooks.generation = 0
        os._exit(0 if process_hooks.ends_abruptly() or not os.path.exists("/proc/self/stat") else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_forked_child_is_told_and_counts_on() -> None:
    """The child knows that it is another process; the parent has not changed."""
    resident = Resident()
    process_hooks.register(resident)
    before = process_hooks.generation
    pid = os.fork()
    if pid == 0:
        fine = resident.heard == ["fork"] and process_hooks.generation == before + 1
        os._exit(0 if fine else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert resident.heard == []
    assert process_hooks.generation == before


def test_nobody_is_kept_alive() -> None:
    """An emitter that its recorder has let go of is not told, nor held."""
    process_hooks.register(Resident())
    gc.collect()
    assert not [one for one in process_hooks._residents if isinstance(one, Resident)]

"""Calls at a fork and at the end of the process."""

import gc
import os

from runfold.delivery import process_hooks


class RecordedHooks:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def after_fork(self) -> None:
        self.calls.append("fork")

    def at_exit(self) -> None:
        self.calls.append("exit")


def test_hooks_are_called_at_the_end() -> None:
    """Each registered object is called."""
    hooks = RecordedHooks()
    process_hooks.register(hooks)
    process_hooks._run_exit_hooks()
    assert hooks.calls == ["exit"]


def test_only_a_forked_child_ends_abruptly() -> None:
    """A program does not; a process that was forked before the import does."""
    assert not process_hooks.ends_abruptly()
    pid = os.fork()
    if pid == 0:
        process_hooks.generation = 0
        os._exit(0 if process_hooks.ends_abruptly() or not os.path.exists("/proc/self/stat") else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_forked_child_calls_its_hooks_and_counts() -> None:
    """The child knows that it is another process; the parent has not changed."""
    hooks = RecordedHooks()
    process_hooks.register(hooks)
    before = process_hooks.generation
    pid = os.fork()
    if pid == 0:
        is_right = hooks.calls == ["fork"] and process_hooks.generation == before + 1
        os._exit(0 if is_right else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert hooks.calls == []
    assert process_hooks.generation == before


def test_registered_hooks_are_not_kept_alive() -> None:
    """An emitter whose recorder was deleted is neither called nor held."""
    process_hooks.register(RecordedHooks())
    gc.collect()
    assert not [one for one in process_hooks._registered if isinstance(one, RecordedHooks)]

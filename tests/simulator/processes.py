"""A process in the simulation: what it asks of others, and how it dies."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from .fault_injector import FaultInjector


class CrashedError(BaseException):
    """The process is dead. Only the code that starts processes catches this."""


class ProcessContext(Protocol):
    """What a process sees of the world."""

    faults: FaultInjector

    def run_other_actor(self) -> None:
        """Let another actor take a step."""


class Process:
    """Alive until a fault kills it; after that none of its calls has an effect."""

    def __init__(self, world: ProcessContext) -> None:
        self.world = world
        self.alive = True
        self.background_work: Callable[[], None] | None = None
        self.holds_lock = False
        """Whether it holds row locks, for which other processes would wait."""

    def switch(self, *, alone: bool = False) -> None:
        """Crash, or let others act first; every call that leaves the process comes through here.

        `alone`: other processes would have to wait now, so none acts.
        """
        self.crash_if_due()
        if alone or self.holds_lock:
            return
        while self.world.faults.occurs("overtaking"):
            work = self.background_work
            if work is not None and self.world.faults.rng.random() < 0.4:
                work()
            else:
                self.world.run_other_actor()
        self.crash_if_due()

    def crash_if_due(self) -> None:
        """Raise `CrashedError` if the process dies now or is dead already."""
        if self.alive and self.world.faults.occurs("crash"):
            self.alive = False
        if not self.alive:
            raise CrashedError


class FakeExecutor:
    """Replaces the pipeline's thread: submitted work runs at a random moment.

    The other thread's calls therefore come before, after or during that work.
    """

    def __init__(self, process: Process) -> None:
        self._process = process

    def submit(self, work: Callable[..., None], *arguments: object) -> "FakeFuture":
        """Return the future of work that runs later."""
        return FakeFuture(partial(work, *arguments), self._process)

    def shutdown(self) -> None:
        """Nothing is left to do."""


class FakeFuture:
    """The future of what was submitted, as far as a pipeline looks at it."""

    def __init__(self, work: Callable[[], None], process: Process) -> None:
        self._work = work
        self._process = process
        self._begun = self._ended = False
        self._error: BaseException | None = None
        process.background_work = self.run

    def run(self) -> None:
        """Do it, unless it is being done."""
        if self._begun:
            return
        self._begun = True
        self._process.background_work = None
        try:
            self._work()
        except CrashedError as error:
            self._error = error
            raise
        except BaseException as error:  # as a future does
            self._error = error
        finally:
            self._ended = True

    def done(self) -> bool:
        faults = self._process.world.faults
        if faults.calm or faults.rng.random() < 0.5:
            self.run()
        return self._ended

    def result(self) -> None:
        self.run()
        if self._error is not None:
            raise self._error

    def exception(self) -> BaseException | None:
        if self._process.alive:
            self.run()
        return self._error

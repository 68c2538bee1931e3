"""A process in the simulation: what it asks of others, and how it dies."""

from collections.abc import Callable
from typing import Protocol

from .fault_injector import FaultInjector


class CrashedError(BaseException):
    """The process is dead. Nothing catches this but who starts processes."""


class ProcessContext(Protocol):
    """What a process sees of the world."""

    faults: FaultInjector

    def run_other_actor(self) -> None:
        """Let somebody else act."""


class Process:
    """Alive until chance has it otherwise; after that, nothing that it asks for happens."""

    def __init__(self, world: ProcessContext) -> None:
        self.world = world
        self.alive = True
        self.background_work: Callable[[], None] | None = None
        self.holds_lock = False
        """Rows for which others would have to wait."""

    def switch(self, *, alone: bool = False) -> None:
        """Called wherever the process leaves itself: to die, or to be overtaken.

        `alone`: others who came now would have to wait, so nobody comes.
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
        """Raise `CrashedError`, now or once more."""
        if self.alive and self.world.faults.occurs("crash"):
            self.alive = False
        if not self.alive:
            raise CrashedError


class FakeExecutor:
    """In place of the pipeline's thread: what is submitted runs when chance has it.

    So whatever the other thread does meanwhile comes before, after or in the midst of it.
    """

    def __init__(self, process: Process) -> None:
        self._process = process

    def submit(self, work: Callable[[], None]) -> "FakeFuture":
        """Runs sooner or later."""
        return FakeFuture(work, self._process)

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

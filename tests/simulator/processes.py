"""A process in the simulation: what it asks of others, and how it dies."""

from collections.abc import Callable
from typing import Protocol

from .dice import Dice


class CrashedError(BaseException):
    """The process is dead. Nothing catches this but who starts processes."""


class Surroundings(Protocol):
    """What a process sees of the world."""

    dice: Dice

    def meanwhile(self) -> None:
        """Let somebody else act."""


class Process:
    """Alive until chance has it otherwise; after that, nothing that it asks for happens."""

    def __init__(self, world: Surroundings) -> None:
        self.world = world
        self.alive = True
        self.in_background: Callable[[], None] | None = None
        self.holds = False
        """Rows for which others would have to wait."""

    def ask(self, *, alone: bool = False) -> None:
        """Called wherever the process leaves itself: to die, or to be overtaken.

        `alone`: others who came now would have to wait, so nobody comes.
        """
        self.live_or_die()
        if alone or self.holds:
            return
        while self.world.dice.strikes("overtaken"):
            work = self.in_background
            if work is not None and self.world.dice.rng.random() < 0.4:
                work()
            else:
                self.world.meanwhile()
        self.live_or_die()

    def live_or_die(self) -> None:
        """Raise `CrashedError`, now or once more."""
        if self.alive and self.world.dice.strikes("crash"):
            self.alive = False
        if not self.alive:
            raise CrashedError


class Writer:
    """In place of the pipeline's thread: what is submitted runs when chance has it.

    So whatever the other thread does meanwhile comes before, after or in the midst of it.
    """

    def __init__(self, process: Process) -> None:
        self._process = process

    def submit(self, work: Callable[[], None]) -> "Writing":
        """Runs sooner or later."""
        return Writing(work, self._process)

    def shutdown(self) -> None:
        """Nothing is left to do."""


class Writing:
    """The future of what was submitted, as far as a pipeline looks at it."""

    def __init__(self, work: Callable[[], None], process: Process) -> None:
        self._work = work
        self._process = process
        self._begun = self._ended = False
        self._error: BaseException | None = None
        process.in_background = self.run

    def run(self) -> None:
        """Do it, unless it is being done."""
        if self._begun:
            return
        self._begun = True
        self._process.in_background = None
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
        dice = self._process.world.dice
        if dice.calm or dice.rng.random() < 0.5:
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

"""Numbers for the events of a run, so that no two processes ever give the same one.

The lower half counts; the upper half names the emitter. It is 0 only where this process is
certain to be the first: it has just made the run's id. Whoever joins a run, gives its own id
(another process may have opened that run before) or is a forked child has a random number.
"""

from contextlib import suppress
from itertools import count
from typing import Final

from . import processes
from .ids import make_emitter, make_event_id

_MAX_RUNS: Final = 100_000


class EventIds:
    """The numbers of one run's events in this process."""

    __slots__ = ("count", "generation")

    def __init__(self, emitter: int | None = None) -> None:
        self._renew(make_emitter() if emitter is None else emitter)

    def take(self) -> int:
        """The next number."""
        if self.generation != processes.generation:
            self._renew(make_emitter())
        return next(self.count)

    def _renew(self, emitter: int) -> None:
        self.count = count(make_event_id(emitter, 0))
        self.generation = processes.generation


class RunNumbers:
    """The numbers of all runs that events are emitted for without a handle's help.

    Bounded: a run that is pushed out, or that speaks again after its end, gets another emitter.
    """

    def __init__(self) -> None:
        self._ids: dict[str, EventIds] = {}

    def take(self, run: str) -> int:
        """The next number of a run, known or new."""
        ids = self._ids.get(run)
        if ids is not None and ids.generation == processes.generation:
            return next(ids.count)
        if ids is None:
            if len(self._ids) >= _MAX_RUNS:
                with suppress(RuntimeError):  # another thread adds one: push out at the next
                    self.forget(next(iter(self._ids)))
            ids = self._ids.setdefault(run, EventIds())
        return ids.take()

    def add(self, run: str, ids: EventIds) -> None:
        """Count on where a handle counts."""
        self._ids[run] = ids

    def forget(self, run: str) -> None:
        """The run has ended."""
        self._ids.pop(run, None)

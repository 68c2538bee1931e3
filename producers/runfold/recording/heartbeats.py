"""Signs of life for all open runs of this process, from one timer in the flusher's thread.

A run whose handle is gone without an end gets none, and neither does one that a forked child
inherited: whoever opened it lives on, or is lost. None is sent while Redis is away: it would
take the room of events, and say nothing once it arrives.
"""

import time
from weakref import ref

from runfold.delivery import process_hooks

from .run import Run


class Heartbeats:
    """`every_s=0` sends none."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._open: dict[int, tuple[ref[Run], int]] = {}
        self._next: float | None = None

    def add(self, run: Run) -> None:
        """From now on."""
        self._open[id(run)] = (ref(run), process_hooks.generation)

    def remove(self, run: Run) -> None:
        """No longer."""
        self._open.pop(id(run), None)

    def beat(self, failing: bool) -> float | None:
        """Send those that are due; returns the seconds until the next ones are."""
        if not self._every_s or not self._open:
            self._next = None
            return None
        now = time.monotonic()
        if self._next is None:
            self._next = now + self._every_s
        elif now >= self._next:
            self._next = now + self._every_s
            for key, (known, generation) in list(self._open.items()):
                run = known()
                if run is None or generation != process_hooks.generation:
                    self._open.pop(key, None)
                elif not failing:
                    run.heartbeat()
        return self._next - now

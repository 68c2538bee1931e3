"""Heartbeats of all open runs of this process, from one timer in the flusher's thread.

A run whose handle was garbage-collected gets none, nor does a run that a forked child inherited:
its parent sends them. None is sent while Redis is away: it would take the room of other events and
be out of date on arrival.
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
        """Start the heartbeats of a run."""
        self._open[id(run)] = (ref(run), process_hooks.generation)

    def remove(self, run: Run) -> None:
        """Stop the heartbeats of a run."""
        self._open.pop(id(run), None)

    def send_due(self, is_connected: bool) -> float | None:
        """Emit the heartbeats that are due; return the seconds until the next ones, or None."""
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
                elif is_connected:
                    run.heartbeat()
        return self._next - now

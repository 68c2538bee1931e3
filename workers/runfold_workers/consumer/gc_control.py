"""Cyclic garbage collection at times that do not delay the fold.

Automatic collection would walk all cached runs repeatedly and find nothing, because states hold no
cycles. So it is off while a worker runs, and the worker collects when it is idle.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

IDLE_INTERVAL_S: Final = 60.0
BUSY_INTERVAL_S: Final = 600.0


class Collector:
    """Collects when the worker calls it, if the last collection was long ago."""

    def __init__(self) -> None:
        self._full_at = time.monotonic()

    def after_batch(self) -> None:
        """Collect if ten minutes have passed; this takes a tenth of a second."""
        if time.monotonic() - self._full_at > BUSY_INTERVAL_S:
            self._collect()

    def when_idle(self) -> None:
        """Collect if a minute has passed; no frames wait meanwhile."""
        if time.monotonic() - self._full_at > IDLE_INTERVAL_S:
            self._collect()

    def after_failure(self) -> None:
        """Collect: tracebacks of the failed attempt hold its cache in cycles."""
        self._collect()

    def _collect(self) -> None:
        gc.collect()
        self._full_at = time.monotonic()


@contextmanager
def manual_gc() -> Iterator[None]:
    """Turn automatic collection off until the end."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

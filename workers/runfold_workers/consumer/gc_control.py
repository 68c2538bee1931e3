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
"""A collection takes a tenth of a second."""


class Collector:
    """Collects when the worker calls it, if the last collection was long ago."""

    def __init__(self) -> None:
        self._full_at = time.monotonic()

    def collect(self, interval_s: float = 0.0) -> None:
        """Collect if the last collection was longer ago than this."""
        if time.monotonic() - self._full_at >= interval_s:
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

"""Cyclic garbage collection at moments that suit the fold.

Left alone, the collector walks all remembered runs again and again, a third of the time, and
finds nothing, for states hold no cycles. So it is switched off while a worker runs, and the
worker collects young objects after a batch and everything when there is nothing else to do.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

WHEN_IDLE_S: Final = 60.0
AT_LAST_S: Final = 600.0


class Collector:
    """Collects when it is told that the moment suits."""

    def __init__(self) -> None:
        self._full_at = time.monotonic()

    def after_batch(self) -> None:
        """Only if it has not been done for long; a tenth of a second."""
        if time.monotonic() - self._full_at > AT_LAST_S:
            self._collect()

    def when_idle(self) -> None:
        """Everything, once in a while; this may take long, but nobody waits."""
        if time.monotonic() - self._full_at > WHEN_IDLE_S:
            self._collect()

    def after_failure(self) -> None:
        """What the attempt that failed remembered is part of cycles, and may be most of memory."""
        self._collect()

    def _collect(self) -> None:
        gc.collect()
        self._full_at = time.monotonic()


@contextmanager
def manual_gc() -> Iterator[None]:
    """No collection but through a `Collector`, until the end."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

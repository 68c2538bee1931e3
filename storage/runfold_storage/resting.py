"""Moments in which a shard is left alone by work that its worker has to notice.

After each change behind its back a worker starts over with nothing remembered: without a rest in
between it would never get ahead.
"""

import threading
import time
from typing import Final

REST_S: Final = 0.25


class Rests:
    """How long each shard is still to be left alone; cut short once `stop` is set."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._until: dict[int, float] = {}

    def begin(self, shard: int) -> None:
        """Its worker has to forget what it remembers."""
        self._until[shard] = time.monotonic() + REST_S

    def wait(self, shard: int) -> None:
        """Until it may be touched again, or the work is to stop."""
        left_s = self._until.get(shard, 0) - time.monotonic()
        if left_s > 0:
            self._stop.wait(left_s)

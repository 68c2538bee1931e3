"""Warnings about a condition that lasts: one a minute, however often it is met."""

import logging
import time
from typing import Final

_INTERVAL_S: Final = 60.0

_log = logging.getLogger("runfold")


class ThrottledLog:
    """One condition, such as an outage of Redis."""

    def __init__(self) -> None:
        self._warned_at: float | None = None

    def warning(self, message: str, *args: object, force: bool = False) -> bool:
        """Log a warning unless the last one is less than a minute old; return whether it was."""
        now = time.monotonic()
        if not force and self._warned_at is not None and now - self._warned_at < _INTERVAL_S:
            return False
        self._warned_at = now
        _log.warning(message, *args)
        return True

    def resolve(self, message: str) -> None:
        """Log once, if there was a warning, that the condition is over."""
        if self._warned_at is not None:
            self._warned_at = None
            _log.info(message)

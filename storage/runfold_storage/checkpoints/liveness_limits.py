"""Limits: how long a run may be silent before it is lost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

DEFAULT_RUNNING_S: Final = 3600
DEFAULT_QUEUED_S: Final = 86_400
_LEAST_TICK_S: Final = 0.5
_MOST_TICK_S: Final = 60.0
_TICKS: Final = 20


@dataclass(frozen=True, slots=True)
class Limit:
    """Seconds of silence after which a run is lost, by project or by default; 0: never."""

    default_s: float
    by_project: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> list[float]:
        """All limits that are set."""
        return [each for each in (self.default_s, *self.by_project.values()) if each > 0]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for running and queued runs; a queued run has no process that could send events."""

    running: Limit = field(default_factory=lambda: Limit(DEFAULT_RUNNING_S))
    queued: Limit = field(default_factory=lambda: Limit(DEFAULT_QUEUED_S))

    @property
    def tick_s(self) -> float | None:
        """Seconds between liveness marks; None: no run is ever lost."""
        seconds = [*self.running.seconds, *self.queued.seconds]
        if not seconds:
            return None
        return min(max(min(seconds) / _TICKS, _LEAST_TICK_S), _MOST_TICK_S)


DEFAULT_LIMITS: Final = Limits()

"""Figures as they are measured: by name, one value a repeat; or a reason why there is none."""

import statistics
from typing import Any


class Figures:
    """Collects; the median of its repeats is what a figure is judged by."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}
        self.skipped: dict[str, str] = {}
        self.notes: dict[str, Any] = {}
        """What has no goal and no unit: how a part went, for whoever doubts a figure."""

    def add(self, name: str, value: float) -> None:
        """One more repeat."""
        self._values.setdefault(name, []).append(value)

    def skip(self, name: str, reason: str) -> None:
        """There will be no value."""
        self.skipped[name] = reason

    def values(self, name: str) -> list[float]:
        """Every repeat, in order; empty if there was none."""
        return self._values.get(name, [])

    def median(self, name: str) -> float | None:
        """The middle one; None if there was none."""
        values = self._values.get(name)
        return statistics.median(values) if values else None

    def as_json(self) -> dict[str, Any]:
        """Median, least, most and every repeat of each figure."""
        return {
            name: {
                "median": statistics.median(values),
                "min": min(values),
                "max": max(values),
                "repeats": values,
            }
            for name, values in sorted(self._values.items())
        }

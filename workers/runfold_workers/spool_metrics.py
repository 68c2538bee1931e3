"""The spool of this machine among a worker's metrics: read from its folder when someone asks."""

from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from runfold.spooled import look


class SpoolCollector(Collector):
    """Events of all runners of this machine that use this folder, for whichever Redis."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing, so that registering does not look into the folder."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Look into the folder now; no series at all when it cannot be read."""
        try:
            state = look(self._folder, None, self._max_bytes)
        except OSError:
            return
        for name, text, value in (
            ("events", "Events that wait in the spool of this machine", state.others.events),
            ("bytes", "Size of the spool of this machine", state.size),
            ("max_bytes", "RUNFOLD_SPOOL_BYTES", self._max_bytes),
            ("damaged_segments", "Segments that cannot be read to their end", len(state.damaged)),
        ):
            yield GaugeMetricFamily(f"runfold_spool_{name}", text, value)

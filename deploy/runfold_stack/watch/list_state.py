"""The runs of a list as a watcher knows them; pure."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

import msgspec

from runfold_storage.read_models.summaries import RunPage, RunSummary

from .sse_client import Received

_SPARE: Final = 4


class _Gone(msgspec.Struct):
    id: str


_PAGE: Final = msgspec.json.Decoder(RunPage)
_SUMMARY: Final = msgspec.json.Decoder(RunSummary)
_GONE: Final = msgspec.json.Decoder(_Gone)


class ListState:
    """At most `limit` runs, those that began last."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._runs: dict[str, tuple[datetime, RunSummary]] = {}

    @property
    def runs(self) -> list[RunSummary]:
        """Newest first."""
        newest = sorted(self._runs.values(), key=lambda known: (known[0], known[1].id))
        return [run for _, run in reversed(newest[-self._limit :])]

    def apply(self, received: Received, now: datetime) -> list[RunSummary]:
        """Take an event into account; returns the runs that it changes, in the order they began."""
        changed: list[RunSummary] = []
        if received.event == "snapshot":
            before, self._runs = self._runs, {}
            page = _PAGE.decode(received.data).runs[::-1]
            for run in page:
                self._put(run, before.get(run.id), now)
            changed = [run for run in page if _run_of(before.get(run.id)) != run]
        elif received.event == "changed":
            run = _SUMMARY.decode(received.data)
            if _run_of(self._runs.get(run.id)) != run:
                changed = [run]
            self._put(run, self._runs.get(run.id), now)
        elif received.event in ("removed", "deleted"):
            self._runs.pop(_GONE.decode(received.data).id, None)
        return changed

    def _put(
        self, run: RunSummary, known: tuple[datetime, RunSummary] | None, now: datetime
    ) -> None:
        begun = min(_times(run), default=now if known is None else known[0])
        self._runs[run.id] = (begun, run)
        if len(self._runs) > _SPARE * self._limit:
            kept = {each.id for each in self.runs}
            self._runs = {key: value for key, value in self._runs.items() if key in kept}


def _times(run: RunSummary) -> Iterator[datetime]:
    times: Iterable[datetime | None] = (run.queued_at, run.started_at)
    return (each for each in times if each is not None)


def _run_of(known: tuple[datetime, RunSummary] | None) -> RunSummary | None:
    return None if known is None else known[1]

"""Bars that show when, between the first start and now, each node ran."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple, Protocol

WIDTH: Final = 30


class Timed(Protocol):
    """An attempt at a node."""

    @property
    def started_at(self) -> datetime | None: ...

    @property
    def finished_at(self) -> datetime | None: ...


class Gantt(NamedTuple):
    """Where it begins, and its length in seconds."""

    first: datetime
    length_s: float


def time_line(nodes: Iterable[Timed], now: datetime) -> Gantt | None:
    """From the first start to the last end; None if nothing has started."""
    started = [(node.started_at, node.finished_at or now) for node in nodes if node.started_at]
    if not started:
        return None
    first = min(start for start, _ in started)
    length_s = (max(end for _, end in started) - first).total_seconds()
    return Gantt(first, max(length_s, 1e-6))


def bar(node: Timed, line: Gantt | None, now: datetime) -> str:
    """At least one character for what has started."""
    if line is None or node.started_at is None:
        return ""
    begin = (node.started_at - line.first).total_seconds() / line.length_s * WIDTH
    end = ((node.finished_at or now) - line.first).total_seconds() / line.length_s * WIDTH
    offset = min(int(begin), WIDTH - 1)
    return " " * offset + "━" * max(1, min(round(end), WIDTH) - offset)

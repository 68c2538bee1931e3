"""Format numbers, times and time bars for people, and parse times that people write."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

from runfold_storage.errors import BadParameter
from runfold_storage.parameters import parse_time

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LENGTH = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|[smhdw])")
_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_AGO: Final = re.compile(r"(\d{1,6})([smhdw])")
_MANY: Final = 100_000
BAR_WIDTH: Final = 30


class Timed(Protocol):
    """An attempt at a node."""

    @property
    def started_at(self) -> datetime | None: ...

    @property
    def finished_at(self) -> datetime | None: ...


class TimeAxis(NamedTuple):
    """The start of the time axis, and its length in seconds."""

    first: datetime
    length_s: float


def duration(milliseconds: float | None) -> str:
    """Return `12 ms`, `3.4 s`, `2m 05s`, `3h 07m` or `2d 04h`; nothing for None."""
    if milliseconds is None:
        return ""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"
    seconds = milliseconds / 1000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600:02}h"


def moment(at: datetime | None) -> str:
    """Return UTC to the second: `2026-11-21 02:00:00Z`."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def number(value: int | float) -> str:
    """Return a number with separators; from 100,000 on in k, M or G."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= max(size, _MANY):
            return f"{value / size:.1f}{unit}"
    return f"{value:,}"


def percent(share: float | None) -> str:
    """Return a percentage, which is 100% only if the share is exactly 1."""
    if share is None:
        return ""
    shown = f"{share * 100:.1f}%"
    return "99.9%" if shown == "100.0%" and share < 1 else shown.replace(".0%", "%")


def dollars(usd: float) -> str:
    """Return an amount, with four decimals below one dollar; nothing for zero."""
    if not usd:
        return ""
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.4f}"


def tokens(usage: Any) -> str:
    """Return input and output tokens; nothing for zero."""
    if not usage.total_tokens:
        return ""
    return f"{number(usage.input_tokens)} in, {number(usage.output_tokens)} out"


def point_in_time(option: str, text: str | None, now: datetime) -> datetime | None:
    """Parse RFC 3339, a date, or an age: `90s`, `15m`, `24h`, `7d`, `2w`."""
    ago = _AGO.fullmatch(text or "")
    if ago is None:
        try:
            return parse_time(option, text)
        except BadParameter as error:
            reason = f"{error.reason}, or an age like 24h or 7d"
            raise BadParameter(option, reason) from None
    return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})


def length(text: str) -> float | None:
    """Parse `250ms`, `90s`, `15m`, `2h` or `7d` into milliseconds; None if it is invalid."""
    found = _LENGTH.fullmatch(text)
    if found is None:
        return None
    return float(found[1]) * (1 if found[2] == "ms" else _MS[found[2]])


def time_axis(nodes: Iterable[Timed], now: datetime) -> TimeAxis | None:
    """Return the axis from the first start to the last end; None if no node has started."""
    started = [(node.started_at, node.finished_at or now) for node in nodes if node.started_at]
    if not started:
        return None
    first = min(start for start, _ in started)
    length_s = (max(end for _, end in started) - first).total_seconds()
    return TimeAxis(first, max(length_s, 1e-6))


def bar(node: Timed, axis: TimeAxis | None, now: datetime) -> str:
    """Return a bar for the time when a node ran, at least one character if it has started."""
    if axis is None or node.started_at is None:
        return ""
    begin = (node.started_at - axis.first).total_seconds() / axis.length_s * BAR_WIDTH
    end = ((node.finished_at or now) - axis.first).total_seconds() / axis.length_s * BAR_WIDTH
    offset = min(int(begin), BAR_WIDTH - 1)
    return " " * offset + "━" * max(1, min(round(end), BAR_WIDTH) - offset)

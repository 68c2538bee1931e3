"""Format numbers, times and time bars for people, and parse times that people write."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from runfold_storage.errors import BadParameter
from runfold_storage.parameters import parse_time
from runfold_storage.read_models.summaries import NodeFacts, RunFacts

_LENGTH: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(ms|[smhdw])")
_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_MANY: Final = 100_000
BAR_WIDTH: Final = 30


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
    age_ms = length(text or "")
    if age_ms is not None:
        return now - timedelta(milliseconds=age_ms)
    try:
        return parse_time(option, text)
    except BadParameter as error:
        reason = f"{error.reason}, or an age like 24h or 7d"
        raise BadParameter(option, reason) from None


def length(text: str) -> float | None:
    """Parse `250ms`, `90s`, `15m`, `2h` or `7d` into milliseconds; None if it is invalid."""
    found = _LENGTH.fullmatch(text)
    return None if found is None else float(found[1]) * _MS[found[2]]


def took_ms(timed: RunFacts | NodeFacts, now: datetime) -> float | None:
    """Return the duration in milliseconds; for a running run or node, the time until now."""
    if timed.duration_ms is None and timed.status == "running" and timed.started_at is not None:
        return max(0.0, (now - timed.started_at).total_seconds() * 1000)
    return timed.duration_ms


class TimeAxis:
    """The time from the first start of some nodes to their last end, which bars are drawn on."""

    def __init__(self, nodes: Iterable[NodeFacts], now: datetime) -> None:
        times = [(node.started_at, node.finished_at or now) for node in nodes if node.started_at]
        self._now = now
        self._first = min((start for start, _ in times), default=now)
        length_s = (max((end for _, end in times), default=now) - self._first).total_seconds()
        self._unit_s = max(length_s, 1e-6) / BAR_WIDTH

    def bar(self, node: NodeFacts) -> str:
        """Return a bar for the time when a node ran, at least one character if it has started."""
        if node.started_at is None:
            return ""
        begin = (node.started_at - self._first).total_seconds() / self._unit_s
        end = ((node.finished_at or self._now) - self._first).total_seconds() / self._unit_s
        offset = min(int(begin), BAR_WIDTH - 1)
        return " " * offset + "━" * max(1, min(round(end), BAR_WIDTH) - offset)

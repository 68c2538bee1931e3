"""Numbers and times as people read them, and times as people write them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from runfold_storage.errors import BadParameter
from runfold_storage.parameters import parse_time

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LENGTH = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|[smhdw])")
_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_AGO: Final = re.compile(r"(\d{1,6})([smhdw])")
_MANY: Final = 100_000


def duration(milliseconds: float | None) -> str:
    """`12 ms`, `3.4 s`, `2m 05s`, `3h 07m`, `2d 04h`."""
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
    """UTC, to the second: `2026-11-21 02:00:00Z`."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def number(value: int | float) -> str:
    """With separators; from 100,000 on in thousands and millions."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= max(size, _MANY):
            return f"{value / size:.1f}{unit}"
    return f"{value:,}"


def percent(share: float | None) -> str:
    """Never 100% when something is missing."""
    if share is None:
        return ""
    shown = f"{share * 100:.1f}%"
    return "99.9%" if shown == "100.0%" and share < 1 else shown.replace(".0%", "%")


def dollars(usd: float) -> str:
    """Nothing for nothing; more digits for less."""
    if not usd:
        return ""
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.4f}"


def tokens(usage: Any) -> str:
    """In and out, where there are any."""
    if not usage.total_tokens:
        return ""
    return f"{number(usage.input_tokens)} in, {number(usage.output_tokens)} out"


def point_in_time(option: str, text: str | None, now: datetime) -> datetime | None:
    """RFC 3339, a date, or how long ago: `90s`, `15m`, `24h`, `7d`, `2w`."""
    ago = _AGO.fullmatch(text or "")
    if ago is None:
        try:
            return parse_time(option, text)
        except BadParameter as error:
            reason = f"{error.reason}, or how long ago, as in 24h or 7d"
            raise BadParameter(option, reason) from None
    return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})


def length(text: str) -> float | None:
    """`250ms`, `90s`, `15m`, `2h`, `7d` in milliseconds; None for anything else."""
    found = _LENGTH.fullmatch(text)
    if found is None:
        return None
    return float(found[1]) * (1 if found[2] == "ms" else _MS[found[2]])

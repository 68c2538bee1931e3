"""Times brought to the minutes, hours and days that statistics are kept by."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

_HOUR: Final = timedelta(hours=1)


def floor_hour(at: datetime) -> datetime:
    """The start of the hour."""
    return at.replace(minute=0, second=0, microsecond=0)


def ceil_hour(at: datetime) -> datetime:
    """The start of the next hour, unless this is one."""
    return _next(floor_hour(at), at, _HOUR)


def floor_minute(at: datetime) -> datetime:
    """The start of the minute."""
    return at.replace(second=0, microsecond=0)


def ceil_minute(at: datetime) -> datetime:
    """The start of the next minute, unless this is one."""
    return _next(floor_minute(at), at, timedelta(minutes=1))


def floor_day(at: datetime) -> datetime:
    """The start of the day in UTC."""
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def ceil_day(at: datetime) -> datetime:
    """The start of the next day, unless this is one."""
    return _next(floor_day(at), at, timedelta(days=1))


def begin_of_day(day: date, zone: ZoneInfo, fold: int = 0) -> datetime:
    """The midnight of a zone, in UTC; `fold` is that of Python, where there are two."""
    return datetime.combine(day, time(fold=fold), zone).astimezone(UTC)


def _next(start: datetime, at: datetime, step: timedelta) -> datetime:
    try:
        return start if start == at else start + step
    except OverflowError:  # the last one that there is
        return at

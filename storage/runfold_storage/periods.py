"""Times brought to the minutes, hours and days that statistics are kept by."""

from datetime import datetime, timedelta
from typing import Final

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


def _next(start: datetime, at: datetime, step: timedelta) -> datetime:
    try:
        return start if start == at else start + step
    except OverflowError:  # the last one that there is
        return at

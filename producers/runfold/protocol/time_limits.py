"""Bounds for the time of an event, checked once, on its way in: the year 2000, and a day from now.

A clock that was never set yields the year 1, 1970 or 9999; one such run would distort every chart
and stay first in every list.
"""

from typing import Final

from runfold.errors import BrokenEvent

from .codec import MAX_US, MIN_US, to_rfc3339

EARLIEST_US: Final = 946_684_800_000_000
"""2000-01-01T00:00:00Z, in microseconds since the epoch."""
MAX_FUTURE_S: Final = 86_400.0
"""Default of `RUNFOLD_MAX_FUTURE_S`: how far ahead of now a time may be."""


def latest_us(now_us: int, max_future_s: float) -> int:
    """Return the latest allowed time at `now_us`; both in microseconds since the epoch."""
    return min(now_us + int(max_future_s * 1_000_000), MAX_US)


def check_time(field: str, at_us: int, latest_us: int) -> None:
    """Raise `BrokenEvent`, naming the field and the bounds, for a time out of bounds."""
    reason = explain_time(field, at_us, latest_us)
    if reason is not None:
        raise BrokenEvent(reason)


def explain_time(field: str, at_us: int, latest_us: int) -> str | None:
    """Return what is wrong with a time; None if it is within the bounds."""
    if EARLIEST_US <= at_us <= latest_us:
        return None
    given = to_rfc3339(at_us) if MIN_US <= at_us <= MAX_US else f"{at_us} µs after 1970"
    return (
        f"{field}: {given} is out of bounds: allowed is {to_rfc3339(EARLIEST_US)} to "
        f"{to_rfc3339(latest_us)}, which is now and RUNFOLD_MAX_FUTURE_S seconds"
    )

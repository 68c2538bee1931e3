"""Check query parameters: names, choices, numbers, times.

Does not import SQLAlchemy, so that commands that read nothing start without it.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from functools import cache
from typing import Any, Final
from zoneinfo import available_timezones as _available_timezones

from runfold.protocol.events import MAX_NAME

from .errors import BadParameter

UNKNOWN: Final = "\x1a(unknown)"
"""Project and workflow in the tables of an incomplete run: no `queued` or `started` has arrived.

No query can ask for this name; in an event it counts as missing.
"""
MAX_LIMIT: Final = 500
MAX_OFFSET: Final = 10_000


def check_keywords(given: Iterable[str], allowed: type[Any]) -> None:
    """Raise `TypeError` for keyword arguments that a `TypedDict` does not have."""
    if unknown := set(given) - allowed.__annotations__.keys():
        raise TypeError(f"unexpected keyword arguments: {', '.join(sorted(unknown))}")


def check_name(parameter: str, value: str | None) -> str | None:
    """Check the name of a project, workflow or node: 1 to 200 characters that can be stored."""
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME:
        raise BadParameter(parameter, f"expected 1 to {MAX_NAME} characters")
    if value == UNKNOWN:
        raise BadParameter(parameter, "this name is reserved for runs without a beginning")
    return check_storable(parameter, value)


def check_storable(parameter: str, value: str) -> str:
    """Check that PostgreSQL can store a text."""
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise BadParameter(parameter, "must not contain U+0000 or lone surrogates")
    return value


def check_choice(parameter: str, value: str | None, allowed: Iterable[str]) -> str | None:
    """Check that the value is one of a few words."""
    choices = tuple(allowed)
    if value is None or value in choices:
        return value
    raise BadParameter(parameter, f"expected one of {', '.join(choices)}, got {shown(value)}")


def check_number(parameter: str, value: int, lowest: int, highest: int) -> int:
    """Check that the value is an integer within bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise BadParameter(parameter, f"expected {lowest} to {highest}, got {shown(value)}")
    return value


def check_time(parameter: str, value: datetime | None) -> datetime | None:
    """Check that a time has a zone, and return it in UTC."""
    if value is None:
        return None
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise BadParameter(parameter, "expected a time with a zone, such as 2026-11-21T02:00:00Z")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise BadParameter(parameter, "expected a time in the years 1 to 9999") from None


def check_span(
    since: datetime | None, until: datetime | None
) -> tuple[datetime | None, datetime | None]:
    """Check the bounds of a span of time, and return them in UTC."""
    first, end = check_time("since", since), check_time("until", until)
    if first is not None and end is not None and first >= end:
        raise BadParameter("until", "must be later than since")
    return first, end


def check_zone(parameter: str, value: str | None) -> str:
    """Check the name of an IANA time zone; return UTC if there is none."""
    if value is None:
        return "UTC"
    if not isinstance(value, str) or value not in _zones():
        raise BadParameter(parameter, f"expected a zone such as Europe/Berlin, got {shown(value)}")
    return value


def parse_time(parameter: str, text: str | None) -> datetime | None:
    """Parse RFC 3339; a date alone is its midnight in UTC."""
    if text is None:
        return None
    if len(text) > 6 and text[-6] == " ":  # an unescaped `+` in a query string
        text = text[:-6] + "+" + text[-5:]
    try:
        if len(text) == len("2026-11-21"):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        return check_time(parameter, datetime.fromisoformat(text))
    except BadParameter:
        raise
    except ValueError:
        raise BadParameter(
            parameter, "expected RFC 3339, such as 2026-11-21T02:00:00Z, or a date alone"
        ) from None


def shown(value: Any) -> str:
    """Return the value's repr, shortened for a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


@cache
def _zones() -> frozenset[str]:
    return frozenset(_available_timezones() - {"localtime", "Factory"})

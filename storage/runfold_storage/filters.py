"""What reads may be asked for, checked before any SQL is made of it.

Every check raises `BadParameter` with the parameter's name and what is allowed, so that nothing
that a caller can write reaches the database as an error.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement

from runfold.events import MAX_NAME

from .errors import BadParameter
from .tables import RUN_STATUSES, runs

MAX_LIMIT: Final = 500
MAX_OFFSET: Final = 10_000

_HOUR: Final = timedelta(hours=1)


class RunFilter(Struct, frozen=True):
    """Which runs are meant; an empty one means all."""

    project: str | None = None
    workflow: str | None = None
    statuses: tuple[str, ...] = ()
    started_after: datetime | None = None
    started_before: datetime | None = None

    @property
    def has_times(self) -> bool:
        return self.started_after is not None or self.started_before is not None

    def question(self) -> bytes:
        """The same bytes for the same filter, for its cursors."""
        return b"runs" + msgspec.json.encode(self)

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL over `runs`."""
        found = self.index_conditions()
        if self.statuses:
            found.append(runs.c.status.in_(self.statuses))
        if self.started_after is not None:
            found.append(runs.c.started_at >= self.started_after)
        if self.started_before is not None:
            found.append(runs.c.started_at < self.started_before)
        return found

    def index_conditions(self) -> list[ColumnElement[bool]]:
        """The part that an index on `runs` answers."""
        found: list[ColumnElement[bool]] = []
        if self.project is not None:
            found.append(runs.c.project == self.project)
        if self.workflow is not None:
            found.append(runs.c.workflow == self.workflow)
        if self.started_before is not None:
            # Implied, since the first event of a run is never later than its start.
            found.append(runs.c.created_at < self.started_before)
        return found


def make_run_filter(
    *,
    project: str | None = None,
    workflow: str | None = None,
    status: str | Iterable[str] | None = None,
    started_after: datetime | None = None,
    started_before: datetime | None = None,
) -> RunFilter:
    """A checked filter: `started_after` is inclusive, `started_before` exclusive."""
    after = check_time("started_after", started_after)
    before = check_time("started_before", started_before)
    if after is not None and before is not None and after >= before:
        raise BadParameter("started_before", "must be later than started_after")
    return RunFilter(
        project=check_name("project", project),
        workflow=check_name("workflow", workflow),
        statuses=_check_statuses(status),
        started_after=after,
        started_before=before,
    )


def check_name(parameter: str, value: str | None) -> str | None:
    """A project, workflow or node: 1 to 200 characters that PostgreSQL can hold."""
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME:
        raise BadParameter(parameter, f"expected 1 to {MAX_NAME} characters")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise BadParameter(parameter, "must not contain U+0000 or lone surrogates")
    return value


def check_choice(parameter: str, value: str | None, allowed: Iterable[str]) -> str | None:
    """One of a few words."""
    choices = tuple(allowed)
    if value is None or value in choices:
        return value
    raise BadParameter(parameter, f"expected one of {', '.join(choices)}, got {_shown(value)}")


def check_number(parameter: str, value: int, lowest: int, highest: int) -> int:
    """A whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise BadParameter(parameter, f"expected {lowest} to {highest}, got {_shown(value)}")
    return value


def check_time(parameter: str, value: datetime | None) -> datetime | None:
    """A time with a zone, in UTC."""
    if value is None:
        return None
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise BadParameter(parameter, "expected a time with a zone, as in 2026-11-21T02:00:00Z")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise BadParameter(parameter, "expected a time in the years 1 to 9999") from None


def parse_time(parameter: str, text: str | None) -> datetime | None:
    """Read RFC 3339; a date alone is its midnight in UTC."""
    if text is None:
        return None
    if len(text) > 6 and text[-6] == " ":  # a `+` that nobody escaped in a query string
        text = text[:-6] + "+" + text[-5:]
    try:
        if len(text) == len("2026-11-21"):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        return check_time(parameter, datetime.fromisoformat(text))
    except BadParameter:
        raise
    except ValueError:
        raise BadParameter(
            parameter, "expected RFC 3339, as in 2026-11-21T02:00:00Z, or a date alone"
        ) from None


def floor_hour(at: datetime) -> datetime:
    """The start of the hour."""
    return at.replace(minute=0, second=0, microsecond=0)


def ceil_hour(at: datetime) -> datetime:
    """The start of the next hour, unless this is one."""
    hour = floor_hour(at)
    try:
        return hour if hour == at else hour + _HOUR
    except OverflowError:  # the last hour that there is
        return at


def _check_statuses(status: str | Iterable[str] | None) -> tuple[str, ...]:
    if status is None:
        return ()
    wanted = {status} if isinstance(status, str) else set(status)
    for value in sorted(wanted, key=str):
        check_choice("status", value, RUN_STATUSES)
    return () if wanted.issuperset(RUN_STATUSES) else tuple(sorted(wanted))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"

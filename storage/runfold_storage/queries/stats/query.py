"""Queries for statistics: their parameters, and the sources that an answer is added up from.

A rollup row covers one hour, the hour of a run's first event, so a span of time is widened to whole
hours. Days, weeks and months are those of a time zone; an hour belongs to the day in which it
begins there. Spans are bounded, as not every zone's calendar can represent the years 1 and 9999.
"""

from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from math import ceil
from typing import Any, Final, NamedTuple, Self, TypedDict, Unpack
from zoneinfo import ZoneInfo

from runfold_storage.errors import BadParameter
from runfold_storage.parameters import (
    check_choice,
    check_keywords,
    check_name,
    check_span,
    check_zone,
)

BUCKETS: Final = ("minute", "hour", "day", "week", "month")
GROUPS: Final = ("workflow", "project", "node", "status", "error_type")
MAX_MINUTES: Final = timedelta(hours=6)
"""The longest span by the minute."""
MAX_BUCKETS: Final = 400
"""Maximum number of buckets in one answer, per group."""
MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
_FIRST_DAY: Final = date(2000, 1, 1)
_LAST_DAY: Final = date(9999, 1, 1)
_LENGTHS: Final = {
    "minute": MINUTE,
    "hour": HOUR,
    "day": DAY,
    "week": timedelta(weeks=1),
    "month": timedelta(days=30.4375),
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def round_down(at: datetime, step: timedelta) -> datetime:
    """Return the start of the minute, hour or day in UTC."""
    return at - (at - _EPOCH) % step


def round_up(at: datetime, step: timedelta) -> datetime:
    """Round up to a whole minute, hour or day in UTC."""
    return at + (_EPOCH - at) % step


def begin_of_day(day: date, zone: ZoneInfo, fold: int = 0) -> datetime:
    """Return a zone's midnight in UTC; `fold` selects one of two, as in `datetime`."""
    return datetime.combine(day, time(fold=fold), zone).astimezone(UTC)


class Source(Enum):
    """A source of figures.

    Days cover whole days, hours the rest, and unmerged deltas belong to both. Runs supply what no
    rollup has: minutes and error types.
    """

    DAYS = "days"
    HOURS = "hours"
    UNMERGED = "unmerged"
    RUNS = "runs"


class Part(NamedTuple):
    """A span of time of one source: `first` ≤ time < `end`."""

    source: Source
    first: datetime
    end: datetime

    def around(self, first: datetime, end: datetime) -> list[Self]:
        """Return what is left of a part before and after a span within it."""
        sides = (self._replace(end=first), self._replace(first=end))
        return [side for side in sides if side.first < side.end]


class StatsQuery(NamedTuple):
    """A checked query."""

    project: str | None
    workflow: str | None
    since: datetime
    until: datetime
    bucket: str | None
    group_by: str | None
    tz: str
    has_since: bool
    """Whether the caller gave `since`; else the span begins with the year 2000."""

    def parts(self) -> list[Part]:
        """Return the parts to add up, beside deltas that are not merged yet."""
        if self.is_of_runs:
            return [Part(Source.RUNS, self.since, self.until)]
        hours = Part(Source.HOURS, self.since, self.until)
        first, end = round_up(self.since, DAY), round_down(self.until, DAY)
        has_days = self.bucket != "hour" and self.group_by not in ("node", "status")
        if not has_days or self.day_zone != "UTC" or first >= end:
            return [hours]
        return [Part(Source.DAYS, first, end), *hours.around(first, end)]

    @property
    def is_of_runs(self) -> bool:
        """Whether the answer comes from the runs, because no rollup has it."""
        return self.bucket == "minute" or self.group_by == "error_type"

    @property
    def is_of_days(self) -> bool:
        """Whether the answer is added up from whole days, which are cached."""
        return self.bucket not in ("minute", "hour") and self.group_by is None

    @property
    def day_zone(self) -> str:
        """The time zone of the days to add up."""
        return _day_zone(self.bucket, self.tz)

    def parameters(self, part: Part) -> dict[str, Any]:
        """Return the parameters of the statements for a part."""
        return {
            "project": self.project,
            "workflow": self.workflow,
            "first": part.first,
            "end": part.end,
            "zone": self.day_zone,
        }


class StatsParameters(TypedDict, total=False):
    """A query as keyword arguments; None is the same as leaving one out."""

    project: str | None
    workflow: str | None
    since: datetime | None
    until: datetime | None
    bucket: str | None
    group_by: str | None
    tz: str | None


def make_stats_query(*, now: datetime, **given: Unpack[StatsParameters]) -> StatsQuery:
    """Return a checked query, `since` rounded down and `until` up to the hour (or minute).

    Without `until` it ends with the present day, or hour when by hours.
    """
    check_keywords(given, StatsParameters)
    first, end = check_span(given.get("since"), given.get("until"))
    bucket = check_choice("bucket", given.get("bucket"), BUCKETS)
    group_by = check_choice("group_by", given.get("group_by"), GROUPS)
    if bucket == "minute":
        if first is None or end is None or end - first > MAX_MINUTES:
            raise BadParameter(
                "bucket", "by minute, `since` and `until` are required, at most six hours apart"
            )
        if group_by == "node":
            raise BadParameter("group_by", "nodes are counted by hour at the finest, not by minute")
    tz_name = check_zone("tz", given.get("tz"))
    # The bounds are whole days of the zone, so that no hours are left over.
    zone, step = ZoneInfo(_day_zone(bucket, tz_name)), MINUTE if bucket == "minute" else HOUR
    lowest, highest = begin_of_day(_FIRST_DAY, zone), begin_of_day(_LAST_DAY, zone)
    if end is not None:
        end = min(round_up(min(end, highest), step), highest)
    elif bucket == "hour":
        end = round_down(now, HOUR) + HOUR
    else:
        end = begin_of_day(now.astimezone(zone).date() + DAY, zone)
    start = lowest if first is None else min(max(round_down(first, step), lowest), highest)
    if bucket is not None and first is not None:
        check_buckets(bucket, start, end)
    return StatsQuery(
        check_name("project", given.get("project")),
        check_name("workflow", given.get("workflow")),
        start,
        end,
        bucket,
        group_by,
        tz_name,
        has_since=first is not None,
    )


def check_buckets(bucket: str, first: datetime, end: datetime) -> None:
    """Raise `BadParameter`, naming a bucket that fits, if a span has too many of them."""
    counts = {name: ceil((end - first) / length) for name, length in _LENGTHS.items()}
    if counts[bucket] <= MAX_BUCKETS:
        return
    fitting = [name for name in BUCKETS if counts[name] <= MAX_BUCKETS]
    remedy = f"`{fitting[0]}` fits" if fitting else "choose a shorter span"
    raise BadParameter(
        "bucket",
        f"by {bucket} this span has {counts[bucket]} buckets, at most {MAX_BUCKETS} are allowed: "
        f"{remedy}",
    )


def _day_zone(bucket: str | None, tz: str) -> str:
    return tz if bucket in ("day", "week", "month") else "UTC"

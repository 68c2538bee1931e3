"""What may be asked of statistics, and where the answer is added up from.

A rollup row covers one hour, so a span of time is widened to whole hours: that of a run's first
event decides. Days, weeks and months are those of a time zone; an hour belongs to the day in which
it begins there, which matters in zones that are half an hour off.

They begin with the year 2000 and end with the present hour or day: an older Runfold let runs of the
year 1 or 9999 in, which have no place in a chart and which not every zone's calendar can hold.
"""

from datetime import date, datetime, timedelta
from math import ceil
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, bindparam, literal_column

from runfold_storage.errors import BadParameter
from runfold_storage.parameters import check_choice, check_name, check_time, check_zone

from .sources import (
    Part,
    Source,
    begin_of_day,
    ceil_hour,
    ceil_minute,
    floor_hour,
    floor_minute,
    parts_of,
    table_of,
    time_of,
)

BUCKETS: Final = ("minute", "hour", "day", "week", "month")
GROUPS: Final = ("workflow", "project", "node", "status", "error_type")
MAX_MINUTES: Final = timedelta(hours=6)
"""How long a time may be given by the minute."""
MAX_BUCKETS: Final = 400
"""In one answer, of each group."""
_FIRST_DAY: Final = date(2000, 1, 1)
_LAST_DAY: Final = date(9999, 1, 1)
_LENGTHS: Final = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
    "month": timedelta(days=30.4375),
}


class StatsQuery(NamedTuple):
    """A checked question."""

    project: str | None
    workflow: str | None
    since: datetime
    until: datetime
    bucket: str | None
    group_by: str | None

    tz: str
    has_since: bool
    """Whether it begins where it was asked to; else with the year 2000."""

    def parts(self) -> list[Part]:
        """What to add up, with what is `unmerged`."""
        if self.is_of_runs:
            return [Part(Source.RUNS, self.since, self.until)]
        by_day = self.bucket is None or (self.bucket != "hour" and self.tz == "UTC")
        if by_day and self.group_by not in ("node", "status"):
            return parts_of(self.since, self.until)
        return [Part(Source.HOURS, self.since, self.until)]

    def unmerged(self) -> list[Part]:
        """What belongs to these as well, if they are rollups."""
        if self.is_of_runs:
            return []
        return [Part(Source.UNMERGED, self.since, self.until)]

    @property
    def is_of_runs(self) -> bool:
        """Whether no rollup has the answer."""
        return self.bucket == "minute" or self.group_by == "error_type"

    @property
    def has_zone_days(self) -> bool:
        """Whether it is cut into days of another zone than UTC, or weeks or months of them."""
        is_by_days = self.bucket in ("day", "week", "month")
        return is_by_days and self.tz != "UTC" and self.group_by is None

    def form(self, part: Part) -> "StatsForm":
        """What the statements for a part of it depend on."""
        return StatsForm(
            part.source,
            self.bucket,
            self.group_by,
            has_project=self.project is not None,
            has_workflow=self.workflow is not None,
            has_first=part.first is not None,
            has_end=part.end is not None,
        )

    def parameters(self, part: Part) -> dict[str, Any]:
        """The parameters of those statements."""
        return {
            "project": self.project,
            "workflow": self.workflow,
            "first": part.first,
            "end": part.end,
            # Hours are those of UTC: in zones that are half an hour off, no rollup begins with
            # theirs.
            "zone": "UTC" if self.bucket in ("minute", "hour") else self.tz,
        }


class StatsForm(NamedTuple):
    """Questions whose statements differ by nothing but their parameters."""

    source: Source
    bucket: str | None
    group_by: str | None
    has_project: bool
    has_workflow: bool
    has_first: bool
    has_end: bool

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL over the table of the source."""
        table, time = table_of(self.source).c, time_of(self.source)
        found: list[ColumnElement[bool]] = []
        if self.source is Source.DAYS:
            found += self._level(table)
        else:
            # Written out, or a prepared plan would not know that the index of runs' hours will do.
            is_node = self.group_by == "node"
            found.append(table.node != _NOTHING if is_node else table.node == _NOTHING)
            if self.source is Source.HOURS:
                found.append(table.n > 0)
            if self.has_project:
                found.append(table.project == bindparam("project"))
            if self.has_workflow:
                found.append(table.workflow == bindparam("workflow"))
        if self.group_by == "error_type":
            found.append(table.indexed_status == "failed")
        if self.has_first:
            found.append(time >= bindparam("first"))
        if self.has_end:
            found.append(time < bindparam("end"))
        return found

    def _level(self, days: Any) -> list[ColumnElement[bool]]:
        """Rows of days are there of all, of each project and of each workflow of a project."""
        project = [days.project == bindparam("project")] if self.has_project else []
        if self.has_workflow:
            return [days.workflow == bindparam("workflow"), *project]
        if self.group_by == "workflow":
            return [days.workflow != _NOTHING, *project]
        if self.group_by == "project" and not project:
            return [days.workflow == _NOTHING, days.project != _NOTHING]
        return [days.workflow == _NOTHING, *(project or [days.project == _NOTHING])]


_NOTHING: Final[ColumnElement[str]] = literal_column("''")


def make_stats_query(
    *,
    project: str | None = None,
    workflow: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    bucket: str | None = None,
    group_by: str | None = None,
    tz: str | None = None,
    now: datetime,
) -> StatsQuery:
    """Check a question; `since` goes down and `until` up to the hour (by minutes: the minute).

    Without `until` it ends with the present hour or, unless by hours, day.
    """
    first, end = check_time("since", since), check_time("until", until)
    if first is not None and end is not None and first >= end:
        raise BadParameter("until", "must be later than since")
    check_choice("bucket", bucket, BUCKETS)
    check_choice("group_by", group_by, GROUPS)
    floor, ceiling = floor_hour, ceil_hour
    if bucket == "minute":
        floor, ceiling = floor_minute, ceil_minute
        if first is None or end is None or end - first > MAX_MINUTES:
            raise BadParameter(
                "bucket", "by minutes, `since` and `until` within six hours are needed"
            )
        if group_by == "node":
            raise BadParameter("group_by", "nodes are not counted by minutes, only by the hour")
    zone_name = check_zone("tz", tz)
    lowest, present, highest = _bounds(now, bucket, zone_name)
    query = StatsQuery(
        check_name("project", project),
        check_name("workflow", workflow),
        lowest if first is None else max(lowest, floor(first)),
        present if end is None else min(highest, ceiling(end)),
        bucket,
        group_by,
        zone_name,
        has_since=first is not None,
    )
    if bucket is not None and query.has_since:
        check_buckets(bucket, query.since, query.until)
    return query


def check_buckets(bucket: str, first: datetime, end: datetime) -> None:
    """Raise `BadParameter`, naming one that fits, where a span has too many buckets."""
    counts = {name: ceil((end - first) / length) for name, length in _LENGTHS.items()}
    if counts[bucket] <= MAX_BUCKETS:
        return
    fitting = [name for name in BUCKETS if counts[name] <= MAX_BUCKETS]
    remedy = f"`{fitting[0]}` fits" if fitting else "choose a shorter time"
    raise BadParameter(
        "bucket",
        f"by {bucket} this time has {counts[bucket]} buckets, at most {MAX_BUCKETS} are allowed: "
        f"{remedy}",
    )


def _bounds(now: datetime, bucket: str | None, tz: str) -> tuple[datetime, datetime, datetime]:
    """The earliest and the present end, and the latest one that may be asked for.

    Whole days of the zone, so that they can be read as days and no hours are left over.
    """
    zone = ZoneInfo("UTC" if bucket in (None, "minute", "hour") else tz)
    tomorrow = now.astimezone(zone).date() + timedelta(days=1)
    present = begin_of_day(tomorrow, zone)
    if bucket == "hour":
        present = floor_hour(now) + timedelta(hours=1)
    return begin_of_day(_FIRST_DAY, zone), present, begin_of_day(_LAST_DAY, zone)

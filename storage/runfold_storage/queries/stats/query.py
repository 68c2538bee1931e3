"""Queries for statistics: their parameters, and the sources that an answer is added up from.

A rollup row covers one hour, the hour of a run's first event, so a span of time is widened to whole
hours. Days, weeks and months are those of a time zone; an hour belongs to the day in which it
begins there, which matters in zones with an offset of half an hour.

By default a span begins with the year 2000 and ends with the present hour or day: events with wrong
clocks (years 1 or 9999) do not belong in a chart, and not every zone's calendar can represent them.
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
"""The longest span by the minute."""
MAX_BUCKETS: Final = 400
"""Maximum number of buckets in one answer, per group."""
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
        """Return the parts to add up, beside those of `unmerged`."""
        if self.is_of_runs:
            return [Part(Source.RUNS, self.since, self.until)]
        by_day = self.bucket is None or (self.bucket != "hour" and self.tz == "UTC")
        if by_day and self.group_by not in ("node", "status"):
            return parts_of(self.since, self.until)
        return [Part(Source.HOURS, self.since, self.until)]

    def unmerged(self) -> list[Part]:
        """Return the parts of deltas not merged into the rollups yet."""
        if self.is_of_runs:
            return []
        return [Part(Source.UNMERGED, self.since, self.until)]

    @property
    def is_of_runs(self) -> bool:
        """Whether the answer comes from the runs, because no rollup has it."""
        return self.bucket == "minute" or self.group_by == "error_type"

    @property
    def has_local_days(self) -> bool:
        """Whether its buckets are days, weeks or months of a zone other than UTC."""
        is_by_days = self.bucket in ("day", "week", "month")
        return is_by_days and self.tz != "UTC" and self.group_by is None

    def form(self, part: Part) -> "StatsForm":
        """Return what the text of the statements for a part depends on."""
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
        """Return the parameters of those statements."""
        return {
            "project": self.project,
            "workflow": self.workflow,
            "first": part.first,
            "end": part.end,
            # Rollups have the hours of UTC, also for zones with an offset of half an hour.
            "zone": "UTC" if self.bucket in ("minute", "hour") else self.tz,
        }


class StatsForm(NamedTuple):
    """What the text of a statement depends on; everything else is a parameter."""

    source: Source
    bucket: str | None
    group_by: str | None
    has_project: bool
    has_workflow: bool
    has_first: bool
    has_end: bool

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions over the table of the source."""
        table, time = table_of(self.source).c, time_of(self.source)
        found: list[ColumnElement[bool]] = []
        if self.source is Source.DAYS:
            found += self._level(table)
        else:
            # A literal, so that a prepared plan can use the partial index of runs' hours.
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
        """Select the level: daily rows exist for all runs, each project and each workflow."""
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
    """Return a checked query, `since` rounded down and `until` up to the hour (or minute).

    Without `until` it ends with the present day, or hour when by hours.
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
                "bucket", "by minute, `since` and `until` are required, at most six hours apart"
            )
        if group_by == "node":
            raise BadParameter("group_by", "nodes are counted by hour at the finest, not by minute")
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


def _bounds(now: datetime, bucket: str | None, tz: str) -> tuple[datetime, datetime, datetime]:
    """Return the earliest start, the default end and the latest end.

    These are whole days of the zone, so that no hours are left over.
    """
    zone = ZoneInfo("UTC" if bucket in (None, "minute", "hour") else tz)
    tomorrow = now.astimezone(zone).date() + timedelta(days=1)
    present = begin_of_day(tomorrow, zone)
    if bucket == "hour":
        present = floor_hour(now) + timedelta(hours=1)
    return begin_of_day(_FIRST_DAY, zone), present, begin_of_day(_LAST_DAY, zone)

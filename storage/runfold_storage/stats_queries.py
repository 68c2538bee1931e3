"""What may be asked of statistics, and where the answer is added up from.

A rollup row covers one hour, so a span of time is widened to whole hours: that of a run's first
event decides. Days, weeks and months are those of a time zone; an hour belongs to the day in which
it begins there, which matters in zones that are half an hour off.
"""

from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, literal_column

from .errors import BadParameter
from .parameters import check_choice, check_name, check_time, check_zone
from .periods import ceil_hour, ceil_minute, floor_hour, floor_minute
from .stats_sources import Part, Source, parts_of, table_of, time_of

BUCKETS: Final = ("minute", "hour", "day", "week", "month")
GROUPS: Final = ("workflow", "project", "node", "status", "error_type")
MAX_MINUTES: Final = timedelta(hours=6)
"""How long a time may be given by the minute."""


class StatsQuery(NamedTuple):
    """A checked question."""

    project: str | None
    workflow: str | None
    since: datetime | None
    until: datetime | None
    bucket: str | None
    group_by: str | None

    tz: str

    def parts(self) -> list[Part]:
        """What to add up."""
        if self.bucket == "minute" or self.group_by == "error_type":
            return [Part(Source.RUNS, self.since, self.until)]
        by_day = self.bucket is None or (self.bucket != "hour" and self.tz == "UTC")
        if by_day and self.group_by not in ("node", "status"):
            return parts_of(self.since, self.until)
        return [Part(Source.HOURS, self.since, self.until)]

    def conditions(self, part: Part) -> list[ColumnElement[bool]]:
        """As SQL over this part's table."""
        table, time = table_of(part.source).c, time_of(part.source)
        found: list[ColumnElement[bool]] = []
        if part.source is Source.DAYS:
            found += self._level(table)
        else:
            # Written out, or a prepared plan would not know that the index of runs' hours will do.
            nothing: ColumnElement[str] = literal_column("''")
            is_node = self.group_by == "node"
            found.append(table.node != nothing if is_node else table.node == nothing)
            found.append(table.n > 0)
            if self.project is not None:
                found.append(table.project == self.project)
            if self.workflow is not None:
                found.append(table.workflow == self.workflow)
        if self.group_by == "error_type":
            found.append(table.unusual_status == "failed")
        if part.first is not None:
            found.append(time >= part.first)
        if part.end is not None:
            found.append(time < part.end)
        return found

    def _level(self, days: Any) -> list[ColumnElement[bool]]:
        """Rows of days are there of all, of each project and of each workflow of a project."""
        if self.workflow is not None or self.group_by == "workflow":
            workflow = (
                days.workflow != "" if self.workflow is None else days.workflow == self.workflow
            )
            return [workflow, *([days.project == self.project] if self.project is not None else [])]
        if self.project is None and self.group_by == "project":
            return [days.workflow == "", days.project != ""]
        return [days.workflow == "", days.project == (self.project or "")]


def make_stats_query(
    *,
    project: str | None = None,
    workflow: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    bucket: str | None = None,
    group_by: str | None = None,
    tz: str | None = None,
) -> StatsQuery:
    """Check a question; `since` goes down and `until` up to the hour (by minutes: the minute)."""
    first, end = check_time("since", since), check_time("until", until)
    if first is not None and end is not None and first >= end:
        raise BadParameter("until", "must be later than since")
    check_choice("bucket", bucket, BUCKETS)
    check_choice("group_by", group_by, GROUPS)
    floor, ceil = floor_hour, ceil_hour
    if bucket == "minute":
        floor, ceil = floor_minute, ceil_minute
        if first is None or end is None or end - first > MAX_MINUTES:
            raise BadParameter(
                "bucket", "by minutes, `since` and `until` within six hours are needed"
            )
        if group_by == "node":
            raise BadParameter("group_by", "nodes are not counted by minutes, only by the hour")
    return StatsQuery(
        check_name("project", project),
        check_name("workflow", workflow),
        None if first is None else floor(first),
        None if end is None else ceil(end),
        bucket,
        group_by,
        check_zone("tz", tz),
    )

"""Days of a time zone other than UTC: added up from their hours once, and remembered.

Invariant: whoever changes an hour changes the row of its UTC day in the same transaction
(`rollups`). So a day of a zone is what it was as long as the UTC days that it overlaps are those
rows, which `days_statement` tells.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from .aggregate import Aggregate
from .day_cache import DayCache, Key
from .query import StatsQuery
from .sources import Part, Source, begin_of_day, ceil_day, floor_day
from .sql import MAX_ROWS, days_statement, figures_statement

_DAY: Final = timedelta(days=1)


class LocalDays(NamedTuple):
    """Tallies of whole days by their beginning, and the parts before and after those."""

    tallies: dict[datetime, Aggregate]
    rest: list[Part]


def read_local_days(
    connection: Connection, query: StatsQuery, part: Part, remembered: DayCache
) -> LocalDays:
    """A part that is to be read by the hour, as far as it is whole days of the query's zone."""
    zone = ZoneInfo(query.tz)
    try:
        first, end = _whole(part, zone)
        if first is not None and end is not None and first >= end:
            return LocalDays({}, [part])
        versions = _read_versions(connection, query, first, end)
        if len(versions) > MAX_ROWS:
            return LocalDays({}, [part])
        days = _days_of(versions, first, end, zone)
    except OverflowError:  # at the calendar's ends
        return LocalDays({}, [part])
    tallies: dict[datetime, Aggregate] = {}
    missing = []
    for start, stop in days:
        key: Key = (query.project, query.workflow, query.tz, start)
        version = _version(versions, start, stop)
        tally = remembered.get(key, version)
        if tally is None:
            missing.append((start, stop, key, version))
        else:
            tallies[start] = tally
    if missing:
        span = Part(Source.HOURS, missing[0][0], missing[-1][1])
        found = _read_hours(connection, query, span, zone)
        for start, _, key, version in missing:
            tally = tallies[start] = found[start.astimezone(zone).date()]
            remembered.put(key, version, tally)
    rest = []
    if part.first != first:
        rest.append(Part(part.source, part.first, first))
    if part.end != end:
        rest.append(Part(part.source, end, part.end))
    counting = {start: tally for start, tally in tallies.items() if tally.counts_something}
    return LocalDays(counting, rest)


def begin_of(bucket: str | None, start: datetime, tz: str) -> datetime | None:
    """The beginning of the bucket that a day of this zone is in."""
    if bucket is None:
        return None
    zone = ZoneInfo(tz)
    day = start.astimezone(zone).date()
    if bucket == "week":
        day -= timedelta(days=day.weekday())
    if bucket == "month":
        day = day.replace(day=1)
    # Where there are two midnights, or none, PostgreSQL's date_trunc gives the later of these.
    return max(begin_of_day(day, zone), begin_of_day(day, zone, fold=1))


def _whole(part: Part, zone: ZoneInfo) -> tuple[datetime | None, datetime | None]:
    """The beginnings of the first whole day and of the first that is none any more."""
    first = end = None
    if part.first is not None:
        day = part.first.astimezone(zone).date()
        first = begin_of_day(day, zone)
        if first < part.first:
            first = begin_of_day(day + _DAY, zone)
    if part.end is not None:
        end = begin_of_day(part.end.astimezone(zone).date(), zone)
    return first, end


def _read_versions(
    connection: Connection, query: StatsQuery, first: datetime | None, end: datetime | None
) -> dict[datetime, Any]:
    """What tells the rows of each UTC day that these days overlap."""
    part = Part(
        Source.DAYS,
        None if first is None else floor_day(first),
        None if end is None else ceil_day(end),
    )
    rows = days_statement(query.form(part)).run(connection, query.parameters(part))
    return {day: tuple(version) for day, *version in rows}


def _days_of(
    utc_days: Iterable[datetime], first: datetime | None, end: datetime | None, zone: ZoneInfo
) -> list[tuple[datetime, datetime]]:
    """The whole days that overlap these, from where to where; in order."""
    dates = {
        at.astimezone(zone).date()
        for day in utc_days
        for at in (day, day + _DAY - timedelta.resolution)
    }
    spans = ((begin_of_day(day, zone), begin_of_day(day + _DAY, zone)) for day in sorted(dates))
    return [
        (start, stop)
        for start, stop in spans
        if (first is None or start >= first) and (end is None or stop <= end)
    ]


def _version(versions: dict[datetime, Any], start: datetime, stop: datetime) -> Any:
    day, found = floor_day(start), []
    while day < stop:
        found.append(versions.get(day))
        day += _DAY
    return tuple(found)


def _read_hours(
    connection: Connection, query: StatsQuery, part: Part, zone: ZoneInfo
) -> dict[date, Aggregate]:
    """All days of a span, added up from their hours."""
    by_day = query._replace(bucket="day")
    tallies: dict[date, Aggregate] = defaultdict(Aggregate)
    for row in figures_statement(by_day.form(part)).run(connection, by_day.parameters(part)):
        tallies[row.bucket.astimezone(zone).date()].add_figures(row)
    return tallies

"""The sources of figures: daily rollups, hourly rollups, or the runs themselves.

All have the columns of `rollups_hourly`, except that days have a column for each status. Days
cover whole days, hours the rest, and unmerged deltas belong to both; runs supply what no rollup
has: minutes and error types.
"""

from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import ARRAY, BigInteger, SmallInteger, case, cast, func, literal, select
from sqlalchemy.dialects.postgresql import array

from runfold_storage.records.histogram import LOG_GAMMA, ZERO_BIN
from runfold_storage.tables import pending_rollups, rollups_daily, rollups_hourly, runs

_HOUR: Final = timedelta(hours=1)


def floor_hour(at: datetime) -> datetime:
    """Return the start of the hour."""
    return at.replace(minute=0, second=0, microsecond=0)


def ceil_hour(at: datetime) -> datetime:
    """Round up to a whole hour."""
    return _next(floor_hour(at), at, _HOUR)


def floor_minute(at: datetime) -> datetime:
    """Return the start of the minute."""
    return at.replace(second=0, microsecond=0)


def ceil_minute(at: datetime) -> datetime:
    """Round up to a whole minute."""
    return _next(floor_minute(at), at, timedelta(minutes=1))


def floor_day(at: datetime) -> datetime:
    """Return the start of the UTC day."""
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def ceil_day(at: datetime) -> datetime:
    """Round up to a whole UTC day."""
    return _next(floor_day(at), at, timedelta(days=1))


def begin_of_day(day: date, zone: ZoneInfo, fold: int = 0) -> datetime:
    """Return a zone's midnight in UTC; `fold` selects one of two, as in `datetime`."""
    return datetime.combine(day, time(fold=fold), zone).astimezone(UTC)


def _next(start: datetime, at: datetime, step: timedelta) -> datetime:
    try:
        return start if start == at else start + step
    except OverflowError:  # beyond the calendar
        return at


class Source(Enum):
    """A source of figures."""

    DAYS = "days"
    HOURS = "hours"
    UNMERGED = "unmerged"
    RUNS = "runs"


class Part(NamedTuple):
    """A span of time of one source: `first` ≤ time < `end`."""

    source: Source
    first: datetime | None
    end: datetime | None


def parts_of(first: datetime | None, end: datetime | None) -> list[Part]:
    """Split a span of whole hours into days and the hours before and after them."""
    first_day = None if first is None else ceil_day(first)
    end_day = None if end is None else floor_day(end)
    if first_day is not None and end_day is not None and first_day >= end_day:
        return [Part(Source.HOURS, first, end)]
    found = [Part(Source.DAYS, first_day, end_day)]
    if first != first_day:
        found.append(Part(Source.HOURS, first, first_day))
    if end != end_day:
        found.append(Part(Source.HOURS, end_day, end))
    return found


def table_of(source: Source) -> Any:
    """Return the table of a source."""
    return _TABLES[source]


def time_of(source: Source) -> Any:
    """Return the time column of a source."""
    return table_of(source).c["day" if source is Source.DAYS else "hour"]


def _bins(one: Any) -> Any:
    nothing = cast(array([], type_=BigInteger), ARRAY(BigInteger))
    return case((runs.c.duration_us.is_(None), nothing), else_=array([one], type_=BigInteger))


_BIN: Final = case(
    (runs.c.duration_us <= 0, literal(ZERO_BIN)),
    else_=func.ceil(func.ln(cast(runs.c.duration_us, BigInteger)) / literal(LOG_GAMMA)),
)

_RUNS: Final = select(
    runs.c.workflow,
    runs.c.project,
    literal("").label("node"),
    runs.c.created_at.label("hour"),
    runs.c.status,
    func.coalesce(runs.c.error_type, "").label("error_type"),
    runs.c.indexed_status,
    literal(1).label("n"),
    case((runs.c.duration_us.is_(None), 0), else_=1).label("duration_count"),
    runs.c.duration_us.label("duration_min_us"),
    runs.c.duration_us.label("duration_max_us"),
    func.coalesce(runs.c.duration_us, 0).label("duration_sum_us"),
    runs.c.input_tokens,
    runs.c.output_tokens,
    runs.c.cost_nano_usd,
    _bins(cast(_BIN, SmallInteger)).label("bins"),
    _bins(literal(1)).label("bin_counts"),
).subquery("single_runs")

_TABLES: Final[dict[Source, Any]] = {
    Source.DAYS: rollups_daily,
    Source.HOURS: rollups_hourly,
    Source.UNMERGED: pending_rollups,
    Source.RUNS: _RUNS,
}

"""Pages of runs, newest first, with how many there are in all.

The order is that of each run's first event, then of its key. A page goes on from the key that
the one before it ended at, so runs that arrive meanwhile neither shift nor repeat anything.

No index names `status`, for it changes. So the rollups, which know how many runs of a status
began in each hour, tell between which hours to look: a question after a status that few or no
runs have does not walk through all the others.
"""

import struct
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, func, select, tuple_

from runfold.codec import to_datetime, to_us

from .cursors import decode_cursor, encode_cursor
from .errors import BadParameter
from .filters import MAX_LIMIT, MAX_OFFSET, RunFilter, check_number
from .summaries import RunPage, Total, summary_of
from .tables import runs, stats
from .watermarks import read_watermark

MAX_ROLLUPS: Final = 20_000
"""Rollup rows that are added up for a total; with more it is `at_least` their sum."""
MAX_COUNTED: Final = 10_000
"""Runs that are looked at for a total within a time range."""

SUMMARY_COLUMNS: Final = [
    column for column in runs.c if column.name not in ("shard", "seen_at", "feed_seq")
]

_KEY: Final = struct.Struct(">q16s")
_HOUR: Final = timedelta(hours=1)


class Page(NamedTuple):
    """Which part of a list is wanted."""

    limit: int
    offset: int
    after: tuple[datetime, UUID] | None


class Rollup(NamedTuple):
    """What the rollups say of a filter, its times left out."""

    n: int
    is_complete: bool
    first_hour: datetime | None
    last_hour: datetime | None


def make_page(wanted: RunFilter, limit: int, offset: int, cursor: str | None) -> Page:
    """A checked page of this filter's runs."""
    check_number("limit", limit, 1, MAX_LIMIT)
    check_number("offset", offset, 0, MAX_OFFSET)
    if cursor is None:
        return Page(limit, offset, None)
    if offset:
        raise BadParameter("offset", "cannot be combined with a cursor")
    return Page(limit, 0, _decode_key(decode_cursor(wanted.question(), cursor)))


def read_runs(connection: Connection, wanted: RunFilter, page: Page) -> RunPage:
    """One page; `connection` is in a transaction with one snapshot for all of its statements."""
    rollup = None
    if wanted.statuses or not wanted.has_times:
        rollup = _read_rollup(connection, wanted)
    total = _count(connection, wanted) if wanted.has_times else _total(rollup)
    rows = []
    if rollup is None or rollup.n or not rollup.is_complete:
        rows = list(connection.execute(list_statement(wanted, page, rollup)))
    more = len(rows) > page.limit
    rows = rows[: page.limit]
    return RunPage(
        runs=[summary_of(row) for row in rows],
        next_cursor=_next_cursor(wanted, rows[-1]) if more else None,
        total=total,
        watermark=read_watermark(connection),
    )


def list_statement(wanted: RunFilter, page: Page, rollup: Rollup | None = None) -> Select[Any]:
    """The page's runs, and one more to know whether there is a next page."""
    conditions = wanted.conditions()
    if page.after is not None:
        conditions.append(tuple_(runs.c.created_at, runs.c.run) < tuple_(*page.after))
    if wanted.statuses and rollup is not None and rollup.is_complete:
        if rollup.first_hour is not None:
            conditions.append(runs.c.created_at >= rollup.first_hour)
        if rollup.last_hour is not None and rollup.last_hour < _LAST_HOUR:
            conditions.append(runs.c.created_at < rollup.last_hour + _HOUR)
    return (
        select(*SUMMARY_COLUMNS)
        .where(*conditions)
        .order_by(runs.c.created_at.desc(), runs.c.run.desc())
        .limit(page.limit + 1)
        .offset(page.offset)
    )


_LAST_HOUR: Final = datetime.max.replace(tzinfo=UTC) - _HOUR


def _read_rollup(connection: Connection, wanted: RunFilter) -> Rollup:
    conditions: list[ColumnElement[bool]] = [stats.c.node == "", stats.c.n > 0]
    if wanted.project is not None:
        conditions.append(stats.c.project == wanted.project)
    if wanted.workflow is not None:
        conditions.append(stats.c.workflow == wanted.workflow)
    if wanted.statuses:
        conditions.append(stats.c.status.in_(wanted.statuses))
    rows = select(stats.c.n, stats.c.hour).where(*conditions).limit(MAX_ROLLUPS + 1).subquery()
    n, n_rows, first_hour, last_hour = connection.execute(
        select(
            func.coalesce(func.sum(rows.c.n), 0),
            func.count(),
            func.min(rows.c.hour),
            func.max(rows.c.hour),
        )
    ).one()
    return Rollup(int(n), n_rows <= MAX_ROLLUPS, first_hour, last_hour)


def _total(rollup: Rollup | None) -> Total:
    assert rollup is not None
    return Total(rollup.n, "exact" if rollup.is_complete else "at_least")


def _count(connection: Connection, wanted: RunFilter) -> Total:
    """Count within a time range, as far as a bounded number of runs reaches."""
    looked_at = (
        select(runs.c.status, runs.c.started_at)
        .where(*wanted.index_conditions())
        .order_by(runs.c.created_at.desc(), runs.c.run.desc())
        .limit(MAX_COUNTED + 1)
        .subquery()
    )
    conditions: list[ColumnElement[bool]] = []
    if wanted.statuses:
        conditions.append(looked_at.c.status.in_(wanted.statuses))
    if wanted.started_after is not None:
        conditions.append(looked_at.c.started_at >= wanted.started_after)
    if wanted.started_before is not None:
        conditions.append(looked_at.c.started_at < wanted.started_before)
    n, n_looked_at = connection.execute(
        select(func.count().filter(*conditions), func.count())
    ).one()
    return Total(n, "exact" if n_looked_at <= MAX_COUNTED else "at_least")


def _next_cursor(wanted: RunFilter, last: Any) -> str:
    key = _KEY.pack(to_us(last.created_at), last.run.bytes)
    return encode_cursor(wanted.question(), key)


def _decode_key(key: bytes) -> tuple[datetime, UUID]:
    try:
        created_us, run = _KEY.unpack(key)
        return to_datetime(created_us), UUID(bytes=run)
    except (struct.error, OverflowError):
        raise BadParameter("cursor", "not a cursor of a list of runs") from None

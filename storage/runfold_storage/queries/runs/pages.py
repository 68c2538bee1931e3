"""Pages of runs, newest first, in either direction.

The order is that of each run's first event, then of its key. A page goes on from the key that
the one before it ended at, so runs that arrive meanwhile neither shift nor repeat anything.

A page walks along one index (see `ways`), a stretch at a time, and gives up after `MAX_EXAMINED`
runs: then it holds fewer than it may, and its cursor goes on from there. So a question that
matches nothing costs a bounded time, however many runs there are.
"""

import struct
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from msgspec import UNSET
from sqlalchemy import Connection, Select, select

from runfold.protocol.codec import to_datetime, to_us
from runfold_storage.errors import BadParameter
from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.filters.summary_columns import SUMMARY_COLUMNS
from runfold_storage.parameters import MAX_LIMIT, MAX_OFFSET, check_number
from runfold_storage.read_models.cursors import decode_cursor, encode_cursor
from runfold_storage.read_models.summaries import RunPage, Total, summary_of
from runfold_storage.search.lookup import read_searched
from runfold_storage.tables import runs

from .keyset import NEWEST_FIRST, Key, KeysetPosition
from .planner import NONE, ListEstimate, ListPlan, choose, make_plan, open_hours, read_known, survey
from .sql import end_of_walk, page_among, walked_page, whole_page

FIRST_EXAMINED: Final = 2_000
"""Runs that are looked at in the first stretch of a page, or more where few of the newest match;
each further one is twice as long."""
MAX_EXAMINED: Final = 50_000
"""Runs that are looked at for one page."""

_KEY: Final = struct.Struct(">Bq16s")
_NEWER: Final = 1
_INCLUSIVE: Final = 2
_HOUR: Final = timedelta(hours=1)
_LAST_HOUR: Final = datetime.max.replace(tzinfo=UTC) - _HOUR


class Page(NamedTuple):
    """Which part of a list is wanted."""

    limit: int
    offset: int = 0
    direction: KeysetPosition = NEWEST_FIRST


class _Found(NamedTuple):
    """Rows in the order of the walk; `reached` is where it stopped, if it could go on."""

    rows: list[Any]
    reached: Key | None


def make_page(wanted: RunFilter, limit: int, offset: int, cursor: str | None) -> Page:
    """A checked page of this filter's runs."""
    check_number("limit", limit, 1, MAX_LIMIT)
    check_number("offset", offset, 0, MAX_OFFSET)
    if cursor is None:
        return Page(limit, offset)
    if offset:
        raise BadParameter("offset", "cannot be combined with a cursor")
    return Page(limit, 0, _decode(decode_cursor(wanted.cache_key(), cursor)))


def read_runs(connection: Connection, wanted: RunFilter, page: Page) -> RunPage:
    """One page; `connection` is in a transaction with one snapshot for all of its statements."""
    known = read_known(connection, wanted)
    total, found = NONE, _Found([], None)
    if known.n and (question := _question(connection, wanted)) is not None:
        surveyed = survey(connection, question, known)
        total = surveyed.total
        if total != NONE:
            found = _find(connection, question, surveyed, page)
    rows = found.rows[::-1] if page.direction.is_newer else found.rows
    next_cursor, prev_cursor = _cursors(wanted, page, rows, found.reached)
    searched = UNSET if wanted.payload is None else read_searched(connection, wanted.project)
    return RunPage(
        runs=[summary_of(row) for row in rows],
        next_cursor=next_cursor,
        prev_cursor=prev_cursor,
        total=total,
        watermark=known.watermark,
        searched=searched,
    )


def list_statement(wanted: RunFilter, after: KeysetPosition, limit: int) -> Select[Any]:
    """So many runs, by whatever plan, given `after`: for exports, which go through all of them."""
    return (
        select(*SUMMARY_COLUMNS)
        .where(*wanted.conditions(), *after.form().conditions())
        .order_by(*after.form().order(runs.c))
        .limit(limit)
    )


def _question(connection: Connection, wanted: RunFilter) -> ListPlan | None:
    """None when the rollups say that no run has such a status."""
    first = end = None
    if wanted.statuses and set(wanted.statuses) <= {"queued", "running"}:
        first, last = open_hours(connection, wanted.statuses)
        if first is None or last is None:
            return None
        end = last + _HOUR if last < _LAST_HOUR else None
    return make_plan(wanted, first, end)


def _find(connection: Connection, question: ListPlan, surveyed: ListEstimate, page: Page) -> _Found:
    """The page's runs, in the direction that it goes."""
    direction = page.direction
    given = {**question.parameters, "limit": page.limit + 1, "offset": page.offset}
    if surveyed.among is not None:
        few = page_among(question.form, surveyed.among.kind, direction.form())
        given |= {**direction.parameters(), **surveyed.among.parameters}
        rows = few.run(connection, given)
        return _full(rows, page) or _Found(rows, None)
    way = surveyed.way if direction == NEWEST_FIRST else choose(connection, question, direction)
    if way.is_whole:
        given |= direction.parameters() | {"most": page.limit + 1 + page.offset}
        rows = whole_page(way, direction.form()).run(connection, given)
        return _full(rows, page) or _Found(rows, None)
    rows = []
    examined, most = 0, _first_stretch(page, surveyed.share)
    while True:
        form = direction.form()
        given |= direction.parameters() | {"most": most, "limit": page.limit + 1 - len(rows)}
        rows += walked_page(question.form, way, form).run(connection, given)
        if full := _full(rows, page):
            return full
        if page.direction.key is None and _is_all(surveyed.total, page.offset + len(rows)):
            return _Found(rows, None)
        reached = end_of_walk(way, form).run(connection, given)
        examined += most
        if not reached or (page.offset and not rows):
            return _Found(rows, None)
        key = _key_of(reached[0])
        if examined >= MAX_EXAMINED:
            return _Found(rows, key)
        direction = KeysetPosition(key, direction.is_newer)
        most = min(2 * most, MAX_EXAMINED - examined)


def _is_all(total: Total, n: int) -> bool:
    """Whether so many of the newest are all there are."""
    return total.relation == "exact" and n >= total.value


def _first_stretch(page: Page, share: float) -> int:
    """Twice what should do for a page, where so many match."""
    if page.offset:
        return MAX_EXAMINED
    needed = 2 * page.limit / share if share else MAX_EXAMINED
    return round(min(max(needed, FIRST_EXAMINED), MAX_EXAMINED))


def _full(rows: list[Any], page: Page) -> _Found | None:
    """The page, if there is one run more than it takes."""
    if len(rows) <= page.limit:
        return None
    return _Found(rows[: page.limit], _key_of(rows[page.limit - 1]))


def _cursors(
    wanted: RunFilter, page: Page, rows: list[Any], reached: Key | None
) -> tuple[str | None, str | None]:
    """Towards older runs, and towards newer ones.

    Where a page came from there is always something, even if the page itself has become empty.
    """
    onward = None if reached is None else page.direction._replace(key=reached, is_inclusive=False)
    back = None
    if page.direction.key is not None or page.offset:
        back = KeysetPosition(
            key=_key_of(rows[0 if not page.direction.is_newer else -1])
            if rows
            else page.direction.key,
            is_newer=not page.direction.is_newer,
            is_inclusive=not rows,
        )
    sides = (back, onward) if page.direction.is_newer else (onward, back)
    older, newer = (_encode(wanted, side) for side in sides)
    return older, newer


def _encode(wanted: RunFilter, direction: KeysetPosition | None) -> str | None:
    if direction is None or direction.key is None:
        return None
    flags = _NEWER * direction.is_newer + _INCLUSIVE * direction.is_inclusive
    created_at, run = direction.key
    return encode_cursor(wanted.cache_key(), _KEY.pack(flags, to_us(created_at), run.bytes))


def _decode(key: bytes) -> KeysetPosition:
    try:
        flags, created_us, run = _KEY.unpack(key)
        place = to_datetime(created_us), UUID(bytes=run)
        return KeysetPosition(place, bool(flags & _NEWER), bool(flags & _INCLUSIVE))
    except (struct.error, OverflowError):
        raise BadParameter("cursor", "not a cursor of a list of runs") from None


def _key_of(row: Any) -> Key:
    return row.created_at, row.run

"""Pages of runs, newest first, in either direction.

The order is that of each run's first event, then of its key. A page continues after the key at
which the page before it ended. It scans one index (`index_scans`), a batch at a time, and stops
after `ListLimits.examined` runs: then it holds fewer runs than its limit, and its cursor continues
from there. So a filter that matches nothing costs a bounded time.
"""

import struct
from typing import Any, Final, NamedTuple
from uuid import UUID

from msgspec import UNSET, UnsetType

from runfold.protocol.codec import to_datetime, to_us
from runfold_storage.errors import BadParameter
from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.parameters import MAX_LIMIT, MAX_OFFSET, check_number
from runfold_storage.postgres.connections import ReadConnection
from runfold_storage.read_models.cursors import decode_cursor, encode_cursor
from runfold_storage.read_models.summaries import RunPage, Searched, summary_of
from runfold_storage.search.lookup import read_searched

from . import sql
from .planner import ListLimits, ListPlan
from .sql import NEWEST_FIRST, KeysetPosition, ListKey

_KEY: Final = struct.Struct(">Bq16s")
_NEWER: Final = 1
_INCLUSIVE: Final = 2


class Page(NamedTuple):
    """A checked part of a list."""

    limit: int
    offset: int = 0
    position: KeysetPosition = NEWEST_FIRST


_Found = tuple[list[Any], ListKey | None]
"""Rows in the order of reading, and where it stopped, if there may be more."""


def make_page(run_filter: RunFilter, limit: int, offset: int, cursor: str | None) -> Page:
    """Return a checked page of this filter's runs."""
    check_number("limit", limit, 1, MAX_LIMIT)
    check_number("offset", offset, 0, MAX_OFFSET)
    if cursor is None:
        return Page(limit, offset)
    if offset:
        raise BadParameter("offset", "cannot be combined with a cursor")
    return Page(limit, 0, _decode(decode_cursor(run_filter.cache_key(), cursor)))


def read_runs(
    connection: ReadConnection, run_filter: RunFilter, page: Page, limits: ListLimits
) -> RunPage:
    """Return one page; `connection` is in a transaction with one snapshot."""
    plan = ListPlan(connection, run_filter, limits)
    is_empty = plan.total.relation == "exact" and not plan.total.value
    rows, reached = ([], None) if is_empty else _find(plan, page)
    if page.position.is_newer:
        rows = rows[::-1]
    next_cursor, prev_cursor = _cursors(run_filter, page, rows, reached)
    searched: Searched | UnsetType = UNSET
    if run_filter.payload is not None:
        searched = read_searched(connection, run_filter.project)
    return RunPage(
        runs=[summary_of(row) for row in rows],
        next_cursor=next_cursor,
        prev_cursor=prev_cursor,
        total=plan.total,
        watermark=plan.watermark,
        searched=searched,
    )


def _find(plan: ListPlan, page: Page) -> _Found:
    """Return the page's runs, in the direction of reading."""
    position, limits = page.position, plan.limits
    part: dict[str, Any] = {"limit": page.limit + 1, "offset": page.offset}
    if plan.among is not None:
        statement = sql.candidates_page(plan.run_filter, plan.among, position)
        return _last_batch(plan.rows(statement, **part, **position.parameters()), page)
    scan = plan.scan if position == NEWEST_FIRST else plan.choose_scan(position)
    if scan.is_covering:
        part["most"] = page.limit + 1 + page.offset
        statement = sql.covered_page(scan, position)
        return _last_batch(plan.rows(statement, **part, **position.parameters()), page)
    rows: list[Any] = []
    examined = 0
    most = limits.examined
    if plan.share and not page.offset:  # twice the runs that should fill a page
        most = round(min(max(2 * page.limit / plan.share, limits.first_examined), most))
    while True:
        part |= {"most": most, "limit": page.limit + 1 - len(rows)}
        parameters = part | position.parameters()
        rows += plan.rows(sql.scanned_page(plan.run_filter, scan, position), **parameters)
        if len(rows) > page.limit:
            return _last_batch(rows, page)
        is_exact = plan.total.relation == "exact" and page.position.key is None
        if is_exact and page.offset + len(rows) >= plan.total.value:
            return rows, None
        reached = plan.rows(sql.end_of_scan(scan, position), **parameters)
        examined += most
        if not reached or (page.offset and not rows):
            return rows, None
        key = _key_of(reached[0])
        if examined >= limits.examined:
            return rows, key
        position = KeysetPosition(key, position.is_newer)
        most = min(2 * most, limits.examined - examined)


def _last_batch(rows: list[Any], page: Page) -> _Found:
    """Return the page; it continues if there is one run more than its limit."""
    if len(rows) <= page.limit:
        return rows, None
    return rows[: page.limit], _key_of(rows[page.limit - 1])


def _cursors(
    run_filter: RunFilter, page: Page, rows: list[Any], reached: ListKey | None
) -> tuple[str | None, str | None]:
    """Return the cursors towards older and newer runs; an empty page has one back, too."""
    onward = None if reached is None else page.position._replace(key=reached, is_inclusive=False)
    back = None
    if page.position.key is not None or page.offset:
        key = _key_of(rows[-1 if page.position.is_newer else 0]) if rows else page.position.key
        back = KeysetPosition(key, not page.position.is_newer, is_inclusive=not rows)
    sides = (back, onward) if page.position.is_newer else (onward, back)
    older, newer = (_encode(run_filter, side) for side in sides)
    return older, newer


def _encode(run_filter: RunFilter, position: KeysetPosition | None) -> str | None:
    if position is None or position.key is None:
        return None
    flags = _NEWER * position.is_newer + _INCLUSIVE * position.is_inclusive
    created_at, run = position.key
    return encode_cursor(run_filter.cache_key(), _KEY.pack(flags, to_us(created_at), run.bytes))


def _decode(key: bytes) -> KeysetPosition:
    try:
        flags, created_us, run = _KEY.unpack(key)
        list_key = to_datetime(created_us), UUID(bytes=run)
        return KeysetPosition(list_key, bool(flags & _NEWER), bool(flags & _INCLUSIVE))
    except (struct.error, OverflowError):
        raise BadParameter("cursor", "not a cursor of a list of runs") from None


def _key_of(row: Any) -> ListKey:
    return row.created_at, row.run

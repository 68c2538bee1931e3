"""Pages of runs, newest first, in either direction.

The order is that of each run's first event, then of its key. A page continues after the key at
which the page before it ended, so runs that arrive meanwhile neither shift nor repeat anything.

A page scans one index (`index_scans`), a batch at a time, and stops after `ListLimits.examined`
runs: then it holds fewer runs than its limit, and its cursor continues from there. So a filter that
matches nothing costs a bounded time, however many runs there are.
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

from .keyset import NEWEST_FIRST, KeysetPosition, ListKey
from .planner import (
    NONE,
    ListEstimate,
    ListLimits,
    ListPlan,
    choose_scan,
    estimate_list,
    make_plan,
    read_known_count,
)
from .sql import candidates_page, covered_page, end_of_scan, scanned_page

_KEY: Final = struct.Struct(">Bq16s")
_NEWER: Final = 1
_INCLUSIVE: Final = 2


class Page(NamedTuple):
    """A checked part of a list."""

    limit: int
    offset: int = 0
    position: KeysetPosition = NEWEST_FIRST


class _Found(NamedTuple):
    """Rows in the order of reading; `reached` is where it stopped, if there may be more."""

    rows: list[Any]
    reached: ListKey | None


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
    known = read_known_count(connection, run_filter, limits)
    total, found = NONE, _Found([], None)
    if known.n and (plan := make_plan(connection, run_filter, limits)) is not None:
        estimate = estimate_list(connection, plan, known)
        total = estimate.total
        if total != NONE:
            found = _find(connection, plan, estimate, page)
    rows = found.rows[::-1] if page.position.is_newer else found.rows
    next_cursor, prev_cursor = _cursors(run_filter, page, rows, found.reached)
    searched: Searched | UnsetType = UNSET
    if run_filter.payload is not None:
        searched = read_searched(connection, run_filter.project)
    return RunPage(
        runs=[summary_of(row) for row in rows],
        next_cursor=next_cursor,
        prev_cursor=prev_cursor,
        total=total,
        watermark=known.watermark,
        searched=searched,
    )


def _find(connection: ReadConnection, plan: ListPlan, estimate: ListEstimate, page: Page) -> _Found:
    """Return the page's runs, in the direction of reading."""
    position, run_filter, limits = page.position, plan.run_filter, plan.limits
    parameters = {**plan.parameters, "limit": page.limit + 1, "offset": page.offset}
    scan = estimate.scan
    if position != NEWEST_FIRST and estimate.candidates is None:
        scan = choose_scan(connection, plan, position)
    if estimate.candidates is not None or scan.is_covering:
        parameters |= position.parameters()
        if estimate.candidates is not None:
            statement = candidates_page(run_filter, estimate.candidates.among, position)
            parameters |= estimate.candidates.parameters
        else:
            statement = covered_page(scan, position)
            parameters["most"] = page.limit + 1 + page.offset
        return _last_batch(connection.execute(statement, parameters).fetchall(), page)
    rows: list[Any] = []
    examined, most = 0, _first_batch(page, estimate.share, limits)
    while True:
        limit = page.limit + 1 - len(rows)
        parameters |= position.parameters() | {"most": most, "limit": limit}
        rows += connection.execute(scanned_page(run_filter, scan, position), parameters)
        if len(rows) > page.limit:
            return _last_batch(rows, page)
        total = estimate.total
        is_exact = total.relation == "exact" and page.position.key is None
        if is_exact and page.offset + len(rows) >= total.value:
            return _Found(rows, None)
        reached = connection.execute(end_of_scan(scan, position), parameters).fetchone()
        examined += most
        if reached is None or (page.offset and not rows):
            return _Found(rows, None)
        key = _key_of(reached)
        if examined >= limits.examined:
            return _Found(rows, key)
        position = KeysetPosition(key, position.is_newer)
        most = min(2 * most, limits.examined - examined)


def _first_batch(page: Page, share: float, limits: ListLimits) -> int:
    """Return twice the number of runs that should fill a page at this share of matches."""
    if page.offset or not share:
        return limits.examined
    return round(min(max(2 * page.limit / share, limits.first_examined), limits.examined))


def _last_batch(rows: list[Any], page: Page) -> _Found:
    """Return the page; it continues if there is one run more than its limit."""
    if len(rows) <= page.limit:
        return _Found(rows, None)
    return _Found(rows[: page.limit], _key_of(rows[page.limit - 1]))


def _cursors(
    run_filter: RunFilter, page: Page, rows: list[Any], reached: ListKey | None
) -> tuple[str | None, str | None]:
    """Return the cursors towards older and newer runs.

    There is always a cursor back to the page before, even if this page has become empty.
    """
    onward = None if reached is None else page.position._replace(key=reached, is_inclusive=False)
    back = None
    if page.position.key is not None or page.offset:
        back = KeysetPosition(
            key=_key_of(rows[0 if not page.position.is_newer else -1])
            if rows
            else page.position.key,
            is_newer=not page.position.is_newer,
            is_inclusive=not rows,
        )
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

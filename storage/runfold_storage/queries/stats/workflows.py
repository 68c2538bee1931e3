"""Lists of workflows with the figures of their runs, from the rollups."""

from collections.abc import Sequence
from datetime import datetime
from functools import reduce
from operator import add
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    func,
    select,
    true,
    tuple_,
    union_all,
)

from runfold_storage.errors import BadParameter
from runfold_storage.parameters import MAX_LIMIT, UNKNOWN, check_name, check_number
from runfold_storage.read_models.cursors import decode_cursor, encode_cursor
from runfold_storage.read_models.summaries import Watermark
from runfold_storage.read_models.watermarks import read_watermark
from runfold_storage.tables import RUN_STATUSES, pending_rollups, rollups_daily, runs

from .aggregate import Aggregate, StatsSummary, figures_of
from .sql import sum_columns, unnested_bins

_KEY: Final = msgspec.json.Decoder(tuple[str, str])


class WorkflowSummary(StatsSummary, frozen=True, kw_only=True):
    """A workflow of a project; `last_run_at` is the time of its newest run's first event."""

    workflow: str
    project: str
    last_run_at: datetime


class WorkflowPage(Struct, frozen=True):
    """Workflows by name."""

    workflows: list[WorkflowSummary]
    next_cursor: str | None
    watermark: Watermark


class WorkflowQuery(NamedTuple):
    """A checked query."""

    project: str | None
    limit: int
    after: tuple[str, str] | None

    def cache_key(self) -> bytes:
        """Return bytes that identify this query, for its cursors."""
        return b"workflows" + msgspec.json.encode(self.project)


def make_workflow_query(*, project: str | None, limit: int, cursor: str | None) -> WorkflowQuery:
    """Return a checked query."""
    check_name("project", project)
    check_number("limit", limit, 1, MAX_LIMIT)
    query = WorkflowQuery(project, limit, None)
    if cursor is None:
        return query
    return query._replace(after=_decode_key(decode_cursor(query.cache_key(), cursor)))


def read_workflows(connection: Connection, query: WorkflowQuery) -> WorkflowPage:
    """Return one page, in the order of (workflow, project)."""
    names = connection.execute(_names_statement(query)).all()
    page = names[: query.limit]
    aggregates = _read_aggregates(connection, page)
    more = len(names) > query.limit
    return WorkflowPage(
        workflows=[
            WorkflowSummary(
                **figures_of(aggregates[row.workflow, row.project]),
                workflow=row.workflow,
                project=row.project,
                last_run_at=row.newest or row.day,
            )
            for row in page
        ],
        next_cursor=encode_cursor(query.cache_key(), _key(page[-1])) if more else None,
        watermark=read_watermark(connection),
    )


_DAYS = rollups_daily.c
_UNMERGED = pending_rollups.c
_COUNTS: Final[list[ColumnElement[Any]]] = [
    func.sum(_DAYS[status]).label(status) for status in RUN_STATUSES
]


def _names_statement(query: WorkflowQuery) -> Select[Any]:
    """Select the names, the day of each newest run and, while that run is kept, its time."""
    day = func.date_trunc("day", _UNMERGED.hour, "UTC").label("day")
    n = reduce(add, (_DAYS[status] for status in RUN_STATUSES))
    parts = union_all(
        _names_of(_DAYS, query, _DAYS.day, n).where(_DAYS.workflow != ""),
        _names_of(_UNMERGED, query, day, _UNMERGED.n).where(_UNMERGED.node == ""),
    ).subquery()
    columns = (parts.c.workflow, parts.c.project, parts.c.day)
    days = select(*columns).group_by(*columns).having(func.sum(parts.c.n) > 0).subquery()
    key = (days.c.workflow, days.c.project)
    names = (
        select(*key, func.max(days.c.day).label("day"))
        .group_by(*key)
        .order_by(*key)
        .limit(query.limit + 1)
        .subquery()
    )
    newest = select(func.max(runs.c.created_at)).where(
        runs.c.workflow == names.c.workflow,
        runs.c.project == names.c.project,
        runs.c.created_at >= names.c.day,
    )
    return select(*names.c, newest.scalar_subquery().label("newest")).order_by(
        names.c.workflow, names.c.project
    )


def _names_of(
    of: Any, query: WorkflowQuery, day: ColumnElement[Any], n: ColumnElement[Any]
) -> Select[Any]:
    key = (of.workflow, of.project)
    statement = select(*key, day, n.label("n")).where(of.project != UNKNOWN)
    if query.project is not None:
        statement = statement.where(of.project == query.project)
    if query.after is not None:
        statement = statement.where(tuple_(*key) > tuple_(*query.after))
    return statement


def _read_aggregates(
    connection: Connection, names: Sequence[Row[Any]]
) -> dict[tuple[str, str], Aggregate]:
    aggregates = {(row.workflow, row.project): Aggregate() for row in names}
    if not names:
        return aggregates
    for source in (rollups_daily, pending_rollups):
        of = source.c
        key = (of.workflow, of.project)
        wanted: list[ColumnElement[bool]] = [tuple_(*key).in_(list(aggregates))]
        statuses: list[ColumnElement[Any]] = _COUNTS
        of_each: list[ColumnElement[str]] = []
        if source is pending_rollups:
            wanted.append(of.node == "")
            statuses, of_each = [of.status, func.sum(of.n).label("n")], [of.status]
        sums = select(*key, *statuses, *sum_columns(of)).where(*wanted).group_by(*key, *of_each)
        for row in connection.execute(sums):
            aggregates[row.workflow, row.project].add(row)
        bins = unnested_bins(of)
        histograms = (
            select(*key, bins.c.bin, func.sum(bins.c.n).label("n"))
            .select_from(source.join(bins, true()))
            .where(*wanted)
            .group_by(*key, bins.c.bin)
        )
        for row in connection.execute(histograms):
            aggregates[row.workflow, row.project].add_bin(row.bin, int(row.n))
    return aggregates


def _key(row: Row[Any]) -> bytes:
    return msgspec.json.encode((row.workflow, row.project))


def _decode_key(key: bytes) -> tuple[str, str]:
    try:
        return _KEY.decode(key)
    except msgspec.MsgspecError:
        raise BadParameter("cursor", "not a cursor of a list of workflows") from None

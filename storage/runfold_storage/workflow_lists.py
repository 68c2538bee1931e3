"""Every workflow with what is known of its runs, from the rollups."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Row, Select, func, or_, select, true, tuple_

from .cursors import decode_cursor, encode_cursor
from .errors import BadParameter
from .figures import Figures, figures_of
from .parameters import MAX_LIMIT, check_name, check_number
from .stats_statements import sum_columns, unnested_bins
from .summaries import Watermark
from .tables import RUN_STATUSES, runs, stats_days
from .tallies import Tally
from .watermarks import read_watermark

_KEY: Final = msgspec.json.Decoder(tuple[str, str])


class WorkflowSummary(Figures, frozen=True, kw_only=True):
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
    """A checked question."""

    project: str | None
    limit: int
    after: tuple[str, str] | None

    def question(self) -> bytes:
        """The same bytes for the same question, for its cursors."""
        return b"workflows" + msgspec.json.encode(self.project)


def make_workflow_query(*, project: str | None, limit: int, cursor: str | None) -> WorkflowQuery:
    """Check a question."""
    check_name("project", project)
    check_number("limit", limit, 1, MAX_LIMIT)
    query = WorkflowQuery(project, limit, None)
    if cursor is None:
        return query
    return query._replace(after=_decode_key(decode_cursor(query.question(), cursor)))


def read_workflows(connection: Connection, query: WorkflowQuery) -> WorkflowPage:
    """One page, in the order of (workflow, project)."""
    names = connection.execute(_names_statement(query)).all()
    page = names[: query.limit]
    tallies = _read_tallies(connection, page)
    more = len(names) > query.limit
    return WorkflowPage(
        workflows=[
            WorkflowSummary(
                **figures_of(tallies[row.workflow, row.project]),
                workflow=row.workflow,
                project=row.project,
                last_run_at=row.newest or row.day,
            )
            for row in page
        ],
        next_cursor=encode_cursor(query.question(), _key(page[-1])) if more else None,
        watermark=read_watermark(connection),
    )


_DAYS = stats_days.c
_COUNTS = [func.sum(_DAYS[status]).label(status) for status in RUN_STATUSES]


def _names_statement(query: WorkflowQuery) -> Select[Any]:
    """The names, the day of each one's newest run and, while that run is kept, its time."""
    key = (_DAYS.workflow, _DAYS.project)
    counted = or_(*(_DAYS[status] > 0 for status in RUN_STATUSES))
    conditions: list[ColumnElement[bool]] = [_DAYS.workflow != "", counted]
    if query.project is not None:
        conditions.append(_DAYS.project == query.project)
    if query.after is not None:
        conditions.append(tuple_(*key) > tuple_(*query.after))
    names = (
        select(*key, func.max(_DAYS.day).label("day"))
        .where(*conditions)
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


def _read_tallies(
    connection: Connection, names: Sequence[Row[Any]]
) -> dict[tuple[str, str], Tally]:
    tallies = {(row.workflow, row.project): Tally() for row in names}
    if not names:
        return tallies
    key = (_DAYS.workflow, _DAYS.project)
    wanted = tuple_(*key).in_(list(tallies))
    sums = select(*key, *_COUNTS, *sum_columns(_DAYS)).where(wanted).group_by(*key)
    for row in connection.execute(sums):
        tallies[row.workflow, row.project].add(row)
    bins = unnested_bins(_DAYS)
    histograms = (
        select(*key, bins.c.bin, func.sum(bins.c.n).label("n"))
        .select_from(stats_days.join(bins, true()))
        .where(wanted)
        .group_by(*key, bins.c.bin)
    )
    for row in connection.execute(histograms):
        tallies[row.workflow, row.project].add_bin(row.bin, int(row.n))
    return tallies


def _key(row: Row[Any]) -> bytes:
    return msgspec.json.encode((row.workflow, row.project))


def _decode_key(key: bytes) -> tuple[str, str]:
    try:
        return _KEY.decode(key)
    except msgspec.MsgspecError:
        raise BadParameter("cursor", "not a cursor of a list of workflows") from None

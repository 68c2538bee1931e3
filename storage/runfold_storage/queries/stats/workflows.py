"""Lists of workflows with the figures of their runs, from the rollups."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from runfold_storage.errors import BadParameter
from runfold_storage.parameters import MAX_LIMIT, UNKNOWN, check_name, check_number
from runfold_storage.postgres.connections import ReadConnection
from runfold_storage.read_models.cursors import decode_cursor, encode_cursor
from runfold_storage.read_models.summaries import Watermark
from runfold_storage.read_models.watermarks import read_watermark

from . import sql
from .aggregate import Aggregate, StatsSummary, figures_of
from .query import Source

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
    check_number("limit", limit, 1, MAX_LIMIT)
    query = WorkflowQuery(check_name("project", project), limit, None)
    if cursor is None:
        return query
    try:
        return query._replace(after=_KEY.decode(decode_cursor(query.cache_key(), cursor)))
    except msgspec.MsgspecError:
        raise BadParameter("cursor", "not a cursor of a list of workflows") from None


def read_workflows(connection: ReadConnection, query: WorkflowQuery) -> WorkflowPage:
    """Return one page, in the order of (workflow, project)."""
    names = sql.workflow_names(
        has_project=query.project is not None, has_after=query.after is not None
    )
    after_workflow, after_project = query.after or (None, None)
    parameters = {"project": query.project, "unknown": UNKNOWN, "limit": query.limit + 1}
    after = {"after_workflow": after_workflow, "after_project": after_project}
    rows = connection.execute(names, parameters | after).fetchall()
    page = rows[: query.limit]
    aggregates = _read_aggregates(connection, page)
    last = (page[-1].workflow, page[-1].project) if len(rows) > query.limit else None
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
        next_cursor=last and encode_cursor(query.cache_key(), msgspec.json.encode(last)),
        watermark=read_watermark(connection),
    )


def _read_aggregates(
    connection: ReadConnection, names: Sequence[Any]
) -> dict[tuple[str, str], Aggregate]:
    aggregates: dict[tuple[str, str], Aggregate] = defaultdict(Aggregate)
    workflows, projects = [row.workflow for row in names], [row.project for row in names]
    keys = {"workflows": workflows, "projects": projects}
    for source in (Source.DAYS, Source.UNMERGED):
        for row in connection.execute(sql.workflow_figures(source), keys):
            workflow, project = row.grp
            aggregates[workflow, project].add_figures(row)
    return aggregates

"""Group failures: runs, and node attempts, that failed alike.

Failures are alike if their error type, node and message are the same, apart from numbers, ids,
paths, addresses and quoted texts in the message; PostgreSQL computes this fingerprint when the row
is written. The newest `MAX_EXAMINED` of each kind are grouped; with more, counts are `at_least`.
"""

from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Select, and_, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from runfold_storage.errors import BadParameter
from runfold_storage.parameters import MAX_LIMIT, check_name, check_number, check_time
from runfold_storage.read_models.summaries import Watermark
from runfold_storage.read_models.watermarks import read_watermark
from runfold_storage.tables import nodes, runs

MAX_EXAMINED: Final = 20_000


class FailureGroup(Struct, frozen=True, kw_only=True):
    """Failures that are alike; type, node and message are those of the newest.

    `runs` and `node_attempts` count both kinds; a run that failed because of its node counts in
    each.
    """

    fingerprint: str
    error_type: str | None
    node: str | None
    message: str | None
    runs: int
    node_attempts: int
    first_seen_at: datetime
    last_seen_at: datetime
    example_run: str


class Failures(Struct, frozen=True):
    """The most frequent groups; `relation` says whether all failures were examined."""

    failures: list[FailureGroup]
    relation: Literal["exact", "at_least"]
    watermark: Watermark


class FailureQuery(NamedTuple):
    """A checked query."""

    project: str | None
    workflow: str | None
    since: datetime | None
    until: datetime | None
    limit: int


class _Group(NamedTuple):
    fingerprint: str
    n: int
    first_seen_at: datetime
    last_seen_at: datetime
    error_type: str | None
    node: str | None
    message: str | None
    run: str


def make_failure_query(
    *,
    project: str | None,
    workflow: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
) -> FailureQuery:
    """Return a checked query."""
    first, end = check_time("since", since), check_time("until", until)
    if first is not None and end is not None and first >= end:
        raise BadParameter("until", "must be later than since")
    return FailureQuery(
        check_name("project", project),
        check_name("workflow", workflow),
        first,
        end,
        check_number("limit", limit, 1, MAX_LIMIT),
    )


def read_failures(connection: Connection, query: FailureQuery) -> Failures:
    """Return the groups; `connection` is in a transaction with one snapshot."""
    of_runs = _groups(connection, _failed_runs(query))
    of_nodes = _groups(connection, _failed_nodes(query))
    groups = [
        _merged(of_runs.get(fingerprint), of_nodes.get(fingerprint))
        for fingerprint in of_runs.keys() | of_nodes.keys()
    ]
    groups.sort(key=lambda group: (-max(group.runs, group.node_attempts), group.fingerprint))
    examined = (sum(group.n for group in found.values()) for found in (of_runs, of_nodes))
    return Failures(
        failures=groups[: query.limit],
        relation="at_least" if MAX_EXAMINED in examined else "exact",
        watermark=read_watermark(connection),
    )


def _failed_runs(query: FailureQuery) -> Select[Any]:
    """Select the newest by their first event, in the order of the index."""
    conditions = [runs.c.indexed_status == "failed", *_conditions(query, runs.c.finished_at)]
    if query.until is not None:
        conditions.append(runs.c.created_at < query.until)
    return (
        select(
            runs.c.fingerprint,
            runs.c.finished_at,
            runs.c.error_type,
            runs.c.error_node.label("node"),
            runs.c.error_message,
            func.coalesce(runs.c.external_id, func.text(runs.c.run)).label("run"),
        )
        .where(*conditions)
        .order_by(runs.c.created_at.desc(), runs.c.run.desc())
        .limit(MAX_EXAMINED)
    )


def _failed_nodes(query: FailureQuery) -> Select[Any]:
    join = and_(runs.c.shard == nodes.c.shard, runs.c.run == nodes.c.run)
    return (
        select(
            nodes.c.fingerprint,
            nodes.c.finished_at,
            nodes.c.error_type,
            nodes.c.node,
            nodes.c.error_message,
            func.coalesce(runs.c.external_id, func.text(runs.c.run)).label("run"),
        )
        .select_from(nodes.join(runs, join))
        .where(nodes.c.fingerprint.is_not(None), *_conditions(query, nodes.c.finished_at))
        .order_by(nodes.c.finished_at.desc())
        .limit(MAX_EXAMINED)
    )


def _conditions(query: FailureQuery, ended: Any) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if query.project is not None:
        found.append(runs.c.project == query.project)
    if query.workflow is not None:
        found.append(runs.c.workflow == query.workflow)
    if query.since is not None:
        found.append(ended >= query.since)
    if query.until is not None:
        found.append(ended < query.until)
    return found


def _groups(connection: Connection, failed: Select[Any]) -> dict[str, _Group]:
    """Return the groups by fingerprint, each with the texts of its newest failure."""
    of = failed.subquery()

    def newest(column: Any) -> Any:
        return func.array_agg(aggregate_order_by(column, of.c.finished_at.desc()))[1]

    rows = connection.execute(
        select(
            of.c.fingerprint,
            func.count(),
            func.min(of.c.finished_at),
            func.max(of.c.finished_at),
            *map(newest, (of.c.error_type, of.c.node, of.c.error_message, of.c.run)),
        ).group_by(of.c.fingerprint)
    )
    return {row[0]: _Group(*row) for row in rows}


def _merged(run: _Group | None, node: _Group | None) -> FailureGroup:
    both = [group for group in (run, node) if group is not None]
    shown = both[0]
    return FailureGroup(
        fingerprint=shown.fingerprint,
        error_type=shown.error_type,
        node=shown.node,
        message=shown.message,
        runs=0 if run is None else run.n,
        node_attempts=0 if node is None else node.n,
        first_seen_at=min(group.first_seen_at for group in both),
        last_seen_at=max(group.last_seen_at for group in both),
        example_run=shown.run,
    )

"""Group failures: runs, and node attempts, that failed alike.

Failures are alike if their error type, node and message are the same, apart from numbers, ids,
paths, addresses and quoted texts in the message; PostgreSQL computes this fingerprint when the row
is written. The newest `MAX_EXAMINED` of each kind are grouped; with more, counts are `at_least`.
"""
# ruff: noqa: S608 - joined from constants

from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, TypedDict, Unpack

from msgspec import Struct

from runfold_storage.parameters import (
    MAX_LIMIT,
    check_keywords,
    check_name,
    check_number,
    check_span,
)
from runfold_storage.postgres.connections import ReadConnection
from runfold_storage.read_models.summaries import Watermark
from runfold_storage.read_models.watermarks import read_watermark

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


class FailureParameters(TypedDict, total=False):
    """A query as keyword arguments; None is the same as leaving one out."""

    project: str | None
    workflow: str | None
    since: datetime | None
    until: datetime | None
    limit: int


def make_failure_query(**given: Unpack[FailureParameters]) -> FailureQuery:
    """Return a checked query."""
    check_keywords(given, FailureParameters)
    return FailureQuery(
        check_name("project", given.get("project")),
        check_name("workflow", given.get("workflow")),
        *check_span(given.get("since"), given.get("until")),
        check_number("limit", given.get("limit", 50), 1, MAX_LIMIT),
    )


def read_failures(
    connection: ReadConnection, query: FailureQuery, *, max_examined: int = MAX_EXAMINED
) -> Failures:
    """Return the groups; `connection` is in a transaction with one snapshot."""
    parameters = query._asdict() | {"most": max_examined}
    of_runs, of_nodes = by_kind = [
        {row.fingerprint: row for row in connection.execute(_groups(failed), parameters)}
        for failed in (_failed_runs(query), _failed_nodes(query))
    ]
    groups = [
        _merged(of_runs.get(fingerprint), of_nodes.get(fingerprint))
        for fingerprint in of_runs.keys() | of_nodes.keys()
    ]
    groups.sort(key=lambda group: (-max(group.runs, group.node_attempts), group.fingerprint))
    examined = [sum(group.n for group in found.values()) for found in by_kind]
    return Failures(
        failures=groups[: query.limit],
        relation="at_least" if max_examined in examined else "exact",
        watermark=read_watermark(connection),
    )


def _failed_runs(query: FailureQuery) -> str:
    """Select the newest by their first event, in the order of the index."""
    conditions = ["r.indexed_status = 'failed'", *_conditions(query, "r.finished_at")]
    if query.until is not None:
        conditions.append("r.created_at < %(until)s")
    return f"""
        SELECT r.fingerprint, r.finished_at, r.error_type, r.error_node AS node, r.error_message,
            coalesce(r.external_id, r.run::text) AS run
        FROM runs AS r WHERE {" AND ".join(conditions)}
        ORDER BY r.created_at DESC, r.run DESC LIMIT %(most)s
    """


def _failed_nodes(query: FailureQuery) -> str:
    conditions = ["n.fingerprint IS NOT NULL", *_conditions(query, "n.finished_at")]
    return f"""
        SELECT n.fingerprint, n.finished_at, n.error_type, n.node, n.error_message,
            coalesce(r.external_id, r.run::text) AS run
        FROM nodes AS n JOIN runs AS r ON r.shard = n.shard AND r.run = n.run
        WHERE {" AND ".join(conditions)}
        ORDER BY n.finished_at DESC LIMIT %(most)s
    """


def _conditions(query: FailureQuery, ended: str) -> list[str]:
    conditions = {
        "project": "r.project = %(project)s",
        "workflow": "r.workflow = %(workflow)s",
        "since": f"{ended} >= %(since)s",
        "until": f"{ended} < %(until)s",
    }
    return [sql for name, sql in conditions.items() if getattr(query, name) is not None]


def _groups(failed: str) -> str:
    """Select the groups by fingerprint, each with the texts of its newest failure."""
    newest = ", ".join(
        f"(array_agg({column} ORDER BY finished_at DESC))[1] AS {column}"
        for column in ("error_type", "node", "error_message", "run")
    )
    return f"""
        SELECT fingerprint, count(*) AS n, min(finished_at) AS first_seen_at,
            max(finished_at) AS last_seen_at, {newest}
        FROM ({failed}) AS failed GROUP BY fingerprint
    """


def _merged(run: Any, node: Any) -> FailureGroup:
    both = [group for group in (run, node) if group is not None]
    shown = both[0]
    return FailureGroup(
        fingerprint=shown.fingerprint,
        error_type=shown.error_type,
        node=shown.node,
        message=shown.error_message,
        runs=0 if run is None else run.n,
        node_attempts=0 if node is None else node.n,
        first_seen_at=min(group.first_seen_at for group in both),
        last_seen_at=max(group.last_seen_at for group in both),
        example_run=shown.run,
    )

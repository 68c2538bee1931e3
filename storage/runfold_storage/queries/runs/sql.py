"""The statements of lists of runs, as PostgreSQL gets them.

Each function joins constant fragments, which refer to the runs at hand as `r`. All values are
parameters:
- those of the filter: `RunFilter.parameters`,
- those of the position: `KeysetPosition.parameters`,
- `first`, `end` and `early` of the scans (`index_scans`), and `most` runs to scan,
- `limit` and `offset` of the page, `shards` and `keys` of candidates.
"""
# ruff: noqa: S608 - joined from constants

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

from runfold_storage.filters.run_filter import COLUMNS, RUNS_AT_KEYS, RunFilter
from runfold_storage.read_models.watermarks import POSITION_COLUMNS
from runfold_storage.tables import RUN_STATUSES

from .index_scans import IndexScan

ListKey = tuple[datetime, UUID]
"""A run's position in a list: the time of its first event, and its key."""


class KeysetPosition(NamedTuple):
    """Where a page begins: without a key at the newest run; else towards older or newer runs."""

    key: ListKey | None = None
    is_newer: bool = False
    is_inclusive: bool = False

    def parameters(self) -> dict[str, Any]:
        """Return the values of the parameters of `conditions`."""
        return {} if self.key is None else {"key_at": self.key[0], "key_run": self.key[1]}

    def conditions(self) -> list[str]:
        """Return the SQL conditions for the runs `r` beyond the key, or at it."""
        if self.key is None:
            return []
        operator = (">" if self.is_newer else "<") + ("=" if self.is_inclusive else "")
        key = "(%(key_at)s::timestamptz, %(key_run)s::uuid)"
        return [f"(r.created_at, r.run) {operator} {key}"]

    @property
    def order(self) -> str:
        """The order of reading, as SQL over the runs `r`."""
        side = "ASC" if self.is_newer else "DESC"
        return f"r.created_at {side}, r.run {side}"


NEWEST_FIRST: Final = KeysetPosition()

Among = Literal["tags", "keys"]
"""Few runs named by an index: `most_tagged` with the tags, or those at `shards` and `keys`."""

_KEY: Final = "r.created_at, r.run"


def known_count(run_filter: RunFilter, scan: IndexScan | None) -> str:
    """Select the positions, and `known`: the number of runs of a counted filter, by the rollups.

    `length` is the number of runs on the scan, up to `most`; its index alone is read.
    """
    has_project, has_workflow = run_filter.project is not None, run_filter.workflow is not None
    columns = " + ".join(
        f"d.{status}" for status in RUN_STATUSES if status in (run_filter.statuses or RUN_STATUSES)
    )
    # Daily rows exist for all runs, each project and each workflow of a project.
    daily = [f"d.workflow = {'%(workflow)s::text' if has_workflow else _NOTHING}"]
    if has_project or not has_workflow:
        daily.append(f"d.project = {'%(project)s::text' if has_project else _NOTHING}")
    pending = [f"r.node = {_NOTHING}", *run_filter.conditions("r")]
    length = "NULL" if scan is None else f"(SELECT count(*) FROM {_scan(scan, _KEY)} AS r)"
    return f"""
        SELECT {POSITION_COLUMNS}, {length} AS length,
            coalesce((SELECT sum({columns}) FROM rollups_daily AS d WHERE {_all(daily)}), 0)
            + coalesce((SELECT sum(r.n) FROM pending_rollups AS r WHERE {_all(pending)}), 0)
                AS known
        FROM positions AS p ORDER BY p.shard
    """


def open_hours(run_filter: RunFilter) -> str:
    """Select the first and last hour in which runs with the filter's (open) statuses began."""
    statuses = _all(RunFilter(statuses=run_filter.statuses).conditions("r"))
    return f"""
        SELECT min(hour) AS first, max(hour) AS last FROM (
            SELECT r.hour FROM rollups_hourly AS r WHERE r.is_open AND {statuses}
            UNION ALL
            SELECT r.hour FROM pending_rollups AS r WHERE r.node = {_NOTHING} AND {statuses}
        ) AS hours
    """


def covered_page(scan: IndexScan, position: KeysetPosition) -> str:
    """Select a page of a covering scan."""
    if len(scan.ranges) == 1:
        return _page("runs", [*scan.ranges[0], *position.conditions()], position)
    return _page(_scan(scan, COLUMNS, position), [], position)


def scanned_page(run_filter: RunFilter, scan: IndexScan, position: KeysetPosition) -> str:
    """Select the matches among the next `most` runs of a scan."""
    return _page(_scan(scan, COLUMNS, position), run_filter.conditions("r"), position)


def candidates_page(run_filter: RunFilter, among: Among, position: KeysetPosition) -> str:
    """Select a page of the matches among few runs."""
    conditions = [*run_filter.conditions("r"), *position.conditions()]
    return _page(_candidates(among), conditions, position)


def export_page(run_filter: RunFilter, position: KeysetPosition) -> str:
    """Select a page of all matches, by any plan: an export reads all of them."""
    return _page("runs", [*run_filter.conditions("r"), *position.conditions()], position)


def end_of_scan(scan: IndexScan, position: KeysetPosition) -> str:
    """Select the key of the last of the next `most` runs of a scan; no row if it ends before."""
    return f"""
        SELECT {_KEY} FROM {_scan(scan, _KEY, position)} AS r
        ORDER BY {position.order} OFFSET %(most)s - 1 LIMIT 1
    """


def count_candidates(run_filter: RunFilter, among: Among) -> str:
    """Count few runs: all (`n`), the matches (`matching`), and those with the tags (`tagged`)."""
    return f"SELECT {_sample_counts(run_filter)} FROM {_candidates(among)} AS r"


def sample_scans(run_filter: RunFilter, scans: Sequence[IndexScan]) -> str:
    """Count the newest `most` runs of each scan likewise; `reached` as in `reach_of_scans`."""
    samples = [
        f"""
        SELECT {_sample_counts(run_filter)}, min(r.created_at) AS reached, {number} AS number
        FROM {_scan(scan, COLUMNS)} AS r
        """
        for number, scan in enumerate(scans)
    ]
    return _union(samples)


def reach_of_scans(scans: Sequence[IndexScan], position: KeysetPosition) -> str:
    """Count the next `most` runs of each scan (`n`); the last of them began at `reached`."""
    reached = "max" if position.is_newer else "min"
    reaches = [
        f"""
        SELECT count(*) AS n, {reached}(r.created_at) AS reached, {number} AS number
        FROM {_scan(scan, _KEY, position)} AS r
        """
        for number, scan in enumerate(scans)
    ]
    return _union(reaches)


def explain_matches(run_filter: RunFilter) -> str:
    """Ask the planner for its estimate of the number of matches."""
    matches = f"SELECT r.run FROM runs AS r WHERE {_all(run_filter.conditions('r'))}"
    return f"EXPLAIN (FORMAT JSON) {matches}"


_NOTHING: Final = "''"


def _scan(scan: IndexScan, columns: str, position: KeysetPosition = NEWEST_FIRST) -> str:
    """Return a subquery for the next `most` runs of a scan, in order."""
    parts = [
        f"""(
            SELECT {columns} FROM runs AS r WHERE {_all([*each, *position.conditions()])}
            ORDER BY {position.order} LIMIT %(most)s
        )"""
        for each in scan.ranges
    ]
    if len(parts) == 1:
        return parts[0]
    return f"(SELECT * FROM ({_union(parts)}) AS r ORDER BY {position.order} LIMIT %(most)s)"


def _candidates(among: Among) -> str:
    if among == "keys":
        return f"(SELECT {COLUMNS} FROM {RUNS_AT_KEYS})"
    # OFFSET 0 is a fence: the conditions around it must not talk the planner out of the tag index.
    return f"""(
        SELECT {COLUMNS} FROM runs AS r WHERE r.tags @> %(tags)s::jsonb
        LIMIT %(most_tagged)s OFFSET 0
    )"""


def _page(source: str, conditions: Iterable[str], position: KeysetPosition) -> str:
    """Select `limit` runs of a source from `offset` on, in the order of reading."""
    return f"""
        SELECT {COLUMNS} FROM {source} AS r WHERE {_all(conditions)}
        ORDER BY {position.order} LIMIT %(limit)s OFFSET %(offset)s
    """


def _sample_counts(run_filter: RunFilter) -> str:
    matching = _all(run_filter.conditions("r"))
    tagged = _all(RunFilter(tags=run_filter.tags).conditions("r"))
    return f"""
        count(*) AS n, count(*) FILTER (WHERE {matching}) AS matching,
        count(*) FILTER (WHERE {tagged}) AS tagged
    """


def _all(conditions: Iterable[str]) -> str:
    return " AND ".join(conditions) or "true"


def _union(parts: Iterable[str]) -> str:
    return " UNION ALL ".join(parts)

"""The statements of lists of runs, as PostgreSQL gets them.

Each function joins a text of constant fragments and names of parameters; all values are parameters.
They are those of `RunFilter.parameters` and `KeysetPosition.parameters`; `first`, `end` and `early`
of the scans (`index_scans`); `most`, the maximum number of runs to scan; `limit` and `offset` of
the page; `shards` and `keys` of candidates. Fragments refer to the runs at hand as `r`.
"""
# ruff: noqa: S608 - joined from constants

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.filters.summary_columns import COLUMNS, RUNS_AT_KEYS, SUMMARY_NAMES
from runfold_storage.postgres.statements import Statement, row_of
from runfold_storage.read_models.watermarks import POSITION_COLUMNS, POSITION_NAMES
from runfold_storage.tables import RUN_STATUSES

from .index_scans import IndexScan
from .keyset import NEWEST_FIRST, KeysetPosition

Among = Literal["tags", "keys"]
"""Few runs named by an index: `most` of those with the tags, or those at `shards` and `keys`."""

_KEY: Final = "r.created_at, r.run"


def known_count(run_filter: RunFilter, scan: IndexScan | None) -> Statement:
    """Select the positions, and `known`: the number of runs of a counted filter, by the rollups.

    `length` is the number of runs on the scan, up to `most`; its index alone is read.
    """
    has_project, has_workflow = run_filter.project is not None, run_filter.workflow is not None
    columns = " + ".join(
        f"d.{status}" for status in RUN_STATUSES if status in (run_filter.statuses or RUN_STATUSES)
    )
    # Daily rows exist for all runs, each project and each workflow of a project.
    daily = [f"d.workflow = {'CAST(%(workflow)s AS text)' if has_workflow else _NOTHING}"]
    if has_project or not has_workflow:
        daily.append(f"d.project = {'CAST(%(project)s AS text)' if has_project else _NOTHING}")
    pending = [f"r.node = {_NOTHING}", *run_filter.conditions("r")]
    length = ""
    names: tuple[str, ...] = (*POSITION_NAMES, "known")
    if scan is not None:
        length = f", (SELECT count(*) FROM {_scan(scan, _KEY)} AS r)"
        names = (*names, "length")
    text = f"""
        SELECT {POSITION_COLUMNS},
            coalesce((SELECT sum({columns}) FROM rollups_daily AS d WHERE {_all(daily)}), 0)
            + coalesce((SELECT sum(r.n) FROM pending_rollups AS r WHERE {_all(pending)}), 0)
                AS known
            {length}
        FROM positions AS p ORDER BY p.shard
    """
    return Statement(text, {}, row_of(*names))


def open_hours(run_filter: RunFilter) -> Statement:
    """Select the first and last hour in which runs with the filter's (open) statuses began."""
    statuses = _all(RunFilter(statuses=run_filter.statuses).conditions("r"))
    text = f"""
        SELECT min(hour), max(hour) FROM (
            SELECT r.hour FROM rollups_hourly AS r WHERE r.is_open AND {statuses}
            UNION ALL
            SELECT r.hour FROM pending_rollups AS r WHERE r.node = {_NOTHING} AND {statuses}
        ) AS hours
    """
    return Statement(text, {}, row_of("first", "last"))


def covered_page(scan: IndexScan, position: KeysetPosition) -> Statement:
    """Select a page of a covering scan."""
    if len(scan.ranges) == 1:
        return _page("runs", [*scan.ranges[0], *position.conditions()], position)
    return _page(_scan(scan, COLUMNS, position), [], position)


def scanned_page(run_filter: RunFilter, scan: IndexScan, position: KeysetPosition) -> Statement:
    """Select the matches among the next `most` runs of a scan."""
    return _page(_scan(scan, COLUMNS, position), run_filter.conditions("r"), position)


def candidates_page(run_filter: RunFilter, among: Among, position: KeysetPosition) -> Statement:
    """Select a page of the matches among few runs."""
    conditions = [*run_filter.conditions("r"), *position.conditions()]
    return _page(_candidates(among), conditions, position)


def export_page(run_filter: RunFilter, position: KeysetPosition) -> Statement:
    """Select a page of all matches, by any plan: an export reads all of them."""
    return _page("runs", [*run_filter.conditions("r"), *position.conditions()], position)


def end_of_scan(scan: IndexScan, position: KeysetPosition) -> Statement:
    """Select the key of the last of the next `most` runs of a scan; no row if it ends before."""
    text = f"""
        SELECT {_KEY} FROM {_scan(scan, _KEY, position)} AS r
        ORDER BY {position.order} OFFSET %(most)s - 1 LIMIT 1
    """
    return Statement(text, {}, row_of("created_at", "run"))


def count_candidates(run_filter: RunFilter, among: Among) -> Statement:
    """Count few runs: all (`n`), the matches (`matching`), and those with the tags (`tagged`)."""
    text = f"SELECT {_sample_counts(run_filter)} FROM {_candidates(among)} AS r"
    return Statement(text, {}, _SAMPLE)


def sample_scans(run_filter: RunFilter, scans: Sequence[IndexScan]) -> Statement:
    """Count the newest `most` runs of each scan likewise; `reached` as in `reach_of_scans`."""
    samples = [
        f"""
        SELECT {_sample_counts(run_filter)}, min(r.created_at), {number}
        FROM {_scan(scan, COLUMNS)} AS r
        """
        for number, scan in enumerate(scans)
    ]
    return Statement(_union(samples), {}, _SCAN_SAMPLE)


def reach_of_scans(scans: Sequence[IndexScan], position: KeysetPosition) -> Statement:
    """Count the next `most` runs of each scan (`n`); the last of them began at `reached`."""
    reached = "max" if position.is_newer else "min"
    reaches = [
        f"""
        SELECT count(*), {reached}(r.created_at), {number}
        FROM {_scan(scan, _KEY, position)} AS r
        """
        for number, scan in enumerate(scans)
    ]
    return Statement(_union(reaches), {}, row_of("n", "reached", "number"))


def explain_matches(run_filter: RunFilter) -> Statement:
    """Ask the planner for its estimate of the number of matches."""
    matches = f"SELECT r.run FROM runs AS r WHERE {_all(run_filter.conditions('r'))}"
    return Statement(f"EXPLAIN (FORMAT JSON) {matches}", {}, row_of("plans"))


_NOTHING: Final = "''"
_SUMMARY: Final = row_of(*SUMMARY_NAMES)
_SAMPLE: Final = row_of("n", "matching", "tagged")
_SCAN_SAMPLE: Final = row_of("n", "matching", "tagged", "reached", "number")


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
        SELECT {COLUMNS} FROM runs AS r WHERE r.tags @> CAST(%(tags)s AS jsonb)
        LIMIT %(most)s OFFSET 0
    )"""


def _page(source: str, conditions: Iterable[str], position: KeysetPosition) -> Statement:
    """Select `limit` runs of a source from `offset` on, in the order of reading."""
    text = f"""
        SELECT {COLUMNS} FROM {source} AS r WHERE {_all(conditions)}
        ORDER BY {position.order} LIMIT %(limit)s OFFSET %(offset)s
    """
    return Statement(text, {}, _SUMMARY)


def _sample_counts(run_filter: RunFilter) -> str:
    matching = _all(run_filter.conditions("r"))
    tagged = _all(RunFilter(tags=run_filter.tags).conditions("r"))
    return f"""
        count(*), count(*) FILTER (WHERE {matching}), count(*) FILTER (WHERE {tagged})
    """


def _all(conditions: Iterable[str]) -> str:
    return " AND ".join(conditions) or "true"


def _union(parts: Iterable[str]) -> str:
    return " UNION ALL ".join(parts)

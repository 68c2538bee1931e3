"""The statements of statistics, as PostgreSQL gets them.

Each function joins constant fragments and names of parameters; all values are parameters. Those of
the figures are `StatsQuery.parameters`. Fragments refer to the rows of a source as `r`: they have
the columns of `rollups_hourly`, except that days have a column for each status.
"""
# ruff: noqa: S608 - joined from constants

from collections.abc import Sequence
from typing import Final

from runfold_storage.read_models.watermarks import POSITION_COLUMNS
from runfold_storage.records.histogram import LOG_GAMMA, ZERO_BIN
from runfold_storage.tables import RUN_STATUSES

from .query import Part, Source, StatsQuery

MAX_ROWS: Final = 20_000
"""Maximum number of sums in one answer: groups × buckets × statuses."""

STATE: Final = f"""
    SELECT {POSITION_COLUMNS}, EXISTS (SELECT FROM pending_rollups) AS has_unmerged
    FROM positions AS p ORDER BY p.shard
"""
"""The positions, and whether any deltas are not merged yet."""

_RUNS: Final = f"""(
    SELECT workflow, project, '' AS node, created_at AS hour, status,
        coalesce(error_type, '') AS error_type, indexed_status, 1 AS n,
        (duration_us IS NOT NULL)::int AS duration_count, duration_us AS duration_min_us,
        duration_us AS duration_max_us, coalesce(duration_us, 0) AS duration_sum_us,
        input_tokens, output_tokens, cost_nano_usd,
        CASE WHEN duration_us <= 0 THEN ARRAY[{ZERO_BIN}]
             WHEN duration_us > 0 THEN ARRAY[ceil(ln(duration_us) / float8 '{LOG_GAMMA!r}')::int]
             END AS bins,
        CASE WHEN duration_us IS NOT NULL THEN ARRAY[1] END AS bin_counts
    FROM runs
)"""
_TABLES: Final = {
    Source.DAYS: "rollups_daily",
    Source.HOURS: "rollups_hourly",
    Source.UNMERGED: "pending_rollups",
    Source.RUNS: _RUNS,
}
_STATUS_SUMS: Final = ", ".join(f"sum(r.{status}) AS {status}" for status in RUN_STATUSES)
_HAS_RUNS: Final = " OR ".join(f"sum(r.{status}) <> 0" for status in RUN_STATUSES)
_TOTAL: Final = " + ".join(f"r.{status}" for status in RUN_STATUSES)
_SUMMED: Final = (
    *("duration_count", "duration_sum_us"),
    *("input_tokens", "output_tokens", "cost_nano_usd"),
)
_EXTREMES: Final = ("duration_min_us", "duration_max_us")
_SUMS: Final = f"""
    {", ".join(f"sum(r.{column}) AS {column}" for column in _SUMMED)},
    min(r.duration_min_us) FILTER (WHERE r.duration_count > 0) AS duration_min_us,
    max(r.duration_max_us) FILTER (WHERE r.duration_count > 0) AS duration_max_us
"""


def figures(query: StatsQuery, part: Part) -> str:
    """Select the figures of a part, by group and bucket."""
    bucket = "NULL"
    if query.bucket is not None:
        bucket = f"date_trunc('{query.bucket}', r.{_time_of(part.source)}, %(zone)s)"
    group = "NULL" if query.group_by is None else f"r.{query.group_by}"
    return _figures(part.source, group, bucket, _conditions(query, part.source))


def workflow_figures(source: Source) -> str:
    """Select the figures of the `workflows` and `projects`, which are lists of equal length."""
    keys = "SELECT * FROM unnest(%(workflows)s::text[], %(projects)s::text[])"
    wanted = [f"(r.workflow, r.project) IN ({keys})"]
    if source is Source.UNMERGED:
        wanted.append("r.node = ''")
    return _figures(source, "ARRAY[r.workflow, r.project]", "NULL", wanted)


def _figures(source: Source, group: str, bucket: str, conditions: Sequence[str]) -> str:
    """Select sums, and histograms as rows of their own: one statement saves a round trip.

    Rows of sums have no `bins`; there is one per group and bucket, and per status unless by days. A
    histogram is two arrays, `bins` and `ns`, per group and bucket. There are no histograms with
    more than `MAX_ROWS` sums.
    """
    counts, each, having = "r.status, sum(r.n) AS n", ", r.status", ""
    if source is Source.DAYS:
        counts, each, having = _STATUS_SUMS, "", f"HAVING {_HAS_RUNS}"
    n_sums = counts.count(",") + 1 + len(_SUMMED) + len(_EXTREMES)
    return f"""
        WITH sums AS (
            SELECT {group} AS grp, {bucket} AS bucket, {counts}, {_SUMS}
            FROM {_TABLES[source]} AS r WHERE {_all(conditions)}
            GROUP BY grp, bucket{each} {having} LIMIT {MAX_ROWS + 1}
        ), histograms AS (
            SELECT {group} AS grp, {bucket} AS bucket, h.bin, sum(h.n)::bigint AS n
            FROM {_TABLES[source]} AS r
            CROSS JOIN LATERAL unnest(r.bins, r.bin_counts) AS h (bin, n)
            WHERE {_all(conditions)} AND (SELECT count(*) FROM sums) <= {MAX_ROWS}
            GROUP BY grp, bucket, h.bin HAVING sum(h.n) <> 0
        )
        SELECT sums.*, NULL AS bins, NULL AS ns FROM sums
        UNION ALL
        SELECT grp, bucket, {"NULL, " * n_sums} array_agg(bin), array_agg(n) FROM histograms
        GROUP BY grp, bucket
    """


def day_versions(query: StatsQuery) -> str:
    """Select the days that have runs, each with the version of its rows."""
    return f"""
        SELECT r.day, sum({_TOTAL}) AS n, count(*) AS n_rows,
            sum(hashtext(r.xmin::text)::bigint) AS transactions
        FROM rollups_daily AS r WHERE {_all(_conditions(query, Source.DAYS))}
        GROUP BY r.day HAVING sum({_TOTAL}) <> 0 LIMIT {MAX_ROWS + 1}
    """


def day_rows(query: StatsQuery) -> str:
    """Select the rows of the days `wanted`; Python adds few rows up faster."""
    columns = ("day", *RUN_STATUSES, *_SUMMED, *_EXTREMES, "bins", "bin_counts")
    return f"""
        SELECT {", ".join(f"r.{column}" for column in columns)} FROM rollups_daily AS r
        WHERE {_all(_conditions(query, Source.DAYS))} AND r.day = ANY(%(wanted)s::timestamptz[])
    """


def workflow_names(*, has_project: bool, has_after: bool) -> str:
    """Select `limit` workflows of the `project`, after `after_workflow` and `after_project`.

    Runs whose project is `unknown` are left out. `day` is the day of the newest run and, while that
    run is kept, `newest` its time.
    """
    conditions = ["r.project <> %(unknown)s"]
    if has_project:
        conditions.append("r.project = %(project)s")
    if has_after:
        conditions.append("(r.workflow, r.project) > (%(after_workflow)s, %(after_project)s)")
    return f"""
        WITH names AS (
            SELECT workflow, project, max(day) AS day FROM (
                SELECT workflow, project, day FROM (
                    SELECT r.workflow, r.project, r.day, {_TOTAL} AS n
                    FROM rollups_daily AS r WHERE r.workflow <> '' AND {_all(conditions)}
                    UNION ALL
                    SELECT r.workflow, r.project, date_trunc('day', r.hour, 'UTC'), r.n
                    FROM pending_rollups AS r WHERE r.node = '' AND {_all(conditions)}
                ) AS rows GROUP BY workflow, project, day HAVING sum(n) > 0
            ) AS days GROUP BY workflow, project ORDER BY workflow, project LIMIT %(limit)s
        )
        SELECT workflow, project, day, (
            SELECT max(r.created_at) FROM runs AS r
            WHERE r.workflow = names.workflow AND r.project = names.project
              AND r.created_at >= names.day
        ) AS newest
        FROM names ORDER BY workflow, project
    """


def _conditions(query: StatsQuery, source: Source) -> list[str]:
    """Return the conditions for the rows of a source."""
    project = ["r.project = %(project)s"] if query.project is not None else []
    workflow = ["r.workflow = %(workflow)s"] if query.workflow is not None else []
    if source is Source.DAYS:  # daily rows exist for all runs, each project and each workflow
        if query.group_by == "workflow":
            workflow = workflow or ["r.workflow <> ''"]
        elif not workflow:
            workflow = ["r.workflow = ''"]
            everything = "r.project <> ''" if query.group_by == "project" else "r.project = ''"
            project = project or [everything]
        found = [*workflow, *project]
    else:
        # A literal, so that a prepared plan can use the partial index of runs' hours.
        found = ["r.node <> ''" if query.group_by == "node" else "r.node = ''"]
        found += [*project, *workflow]
    if source is Source.HOURS:
        found.append("r.n > 0")
    if query.group_by == "error_type":
        found.append("r.indexed_status = 'failed'")
    time = _time_of(source)
    return [*found, f"r.{time} >= %(first)s", f"r.{time} < %(end)s"]


def _time_of(source: Source) -> str:
    return "day" if source is Source.DAYS else "hour"


def _all(conditions: Sequence[str]) -> str:
    return " AND ".join(conditions)

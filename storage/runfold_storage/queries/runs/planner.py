"""Plan a list: count or estimate the matches, and choose the index scan with the fewest other runs.

PostgreSQL's planner assumes independent filters, so the scan is chosen here, by sampling the newest
runs of each. Totals are exact where the rollups know them (project, workflow, status), and where
one scan, or the index of tags, has few runs. Beyond that they are estimated from the planner's
statistics: counting would cost more, the more runs there are.
"""

from collections.abc import Iterable, Mapping
from datetime import MAXYEAR, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.read_models.summaries import Total, Watermark
from runfold_storage.read_models.watermarks import watermark_of
from runfold_storage.search.lookup import find_runs

from . import sql
from .index_scans import IndexScan, covering_scan, early_of, index_scans_of
from .keyset import NEWEST_FIRST, KeysetPosition

PROBED: Final = 500
"""Runs to read of each scan to choose one for a further page."""
COUNTED: Final = 1_000
"""Runs to count on a covering scan."""
SAMPLED: Final = 500
"""The newest runs of each scan to sample for matches."""
SAMPLED_FOR_TAGS: Final = 1_000
"""The same for tags: enough to tell rare tags from those of one run in two hundred."""
SAMPLED_FOR_TEXT: Final = 250
"""The same before the search index is used."""
MAX_TAGGED: Final = 2_000
"""Runs with the tags up to which the index of tags is used, for it has no order."""
_COMMON_TEXT: Final = 0.025
"""Share of the newest runs beyond which a text fills a page in the first batch of a scan."""

NONE: Final = Total(0, "exact")
_OPEN: Final = {"queued", "running"}
_HOUR: Final = timedelta(hours=1)


class ListPlan(NamedTuple):
    """A filter, the scans that contain its runs, and the parameters of their statements."""

    run_filter: RunFilter
    scans: tuple[IndexScan, ...]
    parameters: Mapping[str, Any]


class Candidates(NamedTuple):
    """Few runs named by an index, which include all matches."""

    among: sql.Among
    parameters: Mapping[str, Any]


class ListEstimate(NamedTuple):
    """The total, the scan to read, and the candidates if an index has named few.

    `share` is the share of matches among the newest runs of the scan.
    """

    total: Total
    scan: IndexScan
    candidates: Candidates | None = None
    share: float = 1


class KnownCount(NamedTuple):
    """What is known before any run is read: the number of runs of this project, workflow, status.

    `length` is the number of runs on a covering scan, counted up to `COUNTED` + 1.
    """

    n: int
    length: int | None
    watermark: Watermark


def read_known_count(connection: Connection, run_filter: RunFilter) -> KnownCount:
    """Read what the rollups and indexes know, and how far the fold has come."""
    scan = None if run_filter.is_counted else covering_scan(run_filter)
    parameters = run_filter.parameters() | {"most": COUNTED + 1}
    rows = sql.known_count(run_filter.counted(), scan).run(connection, parameters)
    n = int(rows[0].known) if rows else 0
    return KnownCount(n, rows[0].length if rows and scan else None, watermark_of(rows))


def make_plan(connection: Connection, run_filter: RunFilter) -> ListPlan | None:
    """Return the plan of a list; None if the rollups say that no run has such a status."""
    first = end = None
    if run_filter.statuses and set(run_filter.statuses) <= _OPEN:
        (hours,) = sql.open_hours(run_filter).run(connection, run_filter.parameters())
        first, last = hours
        if first is None:
            return None
        end = last + _HOUR if last.year < MAXYEAR else None
    parameters = run_filter.parameters() | {"first": first, "end": end}
    if run_filter.started_after is not None:
        parameters["early"] = early_of(run_filter.started_after)
    scans = index_scans_of(run_filter, has_first=first is not None, has_end=end is not None)
    return ListPlan(run_filter, scans, parameters)


def choose_scan(connection: Connection, plan: ListPlan, position: KeysetPosition) -> IndexScan:
    """Return the scan with the fewest runs from this position on."""
    scans = plan.scans
    if len(scans) == 1:
        return scans[0]
    parameters = {**plan.parameters, **position.parameters(), "most": PROBED}
    samples = sql.reach_of_scans(scans, position).run(connection, parameters)
    number: int = _sparsest(samples, position, PROBED).number
    return scans[number]


def estimate_list(connection: Connection, plan: ListPlan, known: KnownCount) -> ListEstimate:
    """Count or estimate the matches, and choose a scan for the newest page."""
    run_filter = plan.run_filter
    if run_filter.is_counted:
        scan = choose_scan(connection, plan, NEWEST_FIRST)
        return ListEstimate(Total(known.n, "exact"), scan)
    if known.length is not None:
        (scan,) = plan.scans
        if known.length <= COUNTED:
            return ListEstimate(Total(known.length, "exact"), scan)
        estimate = _estimate_matches(connection, plan, known.n, 1)
        return ListEstimate(_bounded(estimate, known.length, known.n), scan)
    most = _sample_size(run_filter)
    parameters = {**plan.parameters, "most": most}
    samples = sql.sample_scans(run_filter, plan.scans).run(connection, parameters)
    sample = _sparsest(samples, NEWEST_FIRST, most)
    scan, share = plan.scans[sample.number], sample.matching / (sample.n or 1)
    if sample.n < most:
        return ListEstimate(Total(sample.matching, "exact"), scan)
    if run_filter.has_text and share <= _COMMON_TEXT:
        run_keys = find_runs(connection, run_filter)
        if run_keys is not None:
            shards, keys = [shard for shard, _ in run_keys], [run for _, run in run_keys]
            found = Candidates("keys", {"shards": shards, "keys": keys})
            return ListEstimate(_count(connection, plan, found).total, scan, found)
    if run_filter.tags and known.n * sample.tagged / sample.n <= 2 * MAX_TAGGED:
        tagged = Candidates("tags", {"most": MAX_TAGGED + 1})
        counted = _count(connection, plan, tagged)
        if counted.n <= MAX_TAGGED:
            return ListEstimate(counted.total, scan, tagged)
    estimate = _estimate_matches(connection, plan, known.n, share)
    return ListEstimate(_bounded(estimate, sample.matching, known.n), scan, share=share)


def _sparsest(samples: Iterable[Any], position: KeysetPosition, most: int) -> Any:
    """Return the sample, of up to `most` runs each, of the scan with the fewest runs."""

    def rank(sample: Any) -> tuple[bool, float]:
        if sample.n < most:
            return False, sample.n
        reached: float = sample.reached.timestamp()
        return True, -reached if position.is_newer else reached

    return min(samples, key=rank)


def _sample_size(run_filter: RunFilter) -> int:
    if run_filter.has_text:
        return SAMPLED_FOR_TEXT
    return SAMPLED_FOR_TAGS if run_filter.tags else SAMPLED


class _Counted(NamedTuple):
    """The number of candidates, and of the matches among them."""

    n: int
    total: Total


def _count(connection: Connection, plan: ListPlan, found: Candidates) -> _Counted:
    parameters = {**plan.parameters, **found.parameters}
    statement = sql.count_candidates(plan.run_filter, found.among)
    (sample,) = statement.run(connection, parameters)
    return _Counted(sample.n, Total(sample.matching, "exact"))


def _bounded(estimate: int, least: int, most: int) -> Total:
    return Total(min(max(least, estimate), most), "estimate")


def _estimate_matches(connection: Connection, plan: ListPlan, known: int, share: float) -> int:
    """Estimate by the statistics of the last ANALYZE; texts by their share of the newest runs."""
    run_filter = plan.run_filter
    rest = run_filter.without_texts()
    if run_filter.has_text and rest.is_counted:
        return round(known * share)
    ((plans,),) = sql.explain_matches(rest).run(connection, rest.parameters())
    estimate = int(plans[0]["Plan"]["Plan Rows"])
    return round(estimate * share) if run_filter.has_text else estimate

"""Plan a list: count or estimate the matches, and choose the index scan with the fewest other runs.

PostgreSQL's planner assumes independent filters, so the scan is chosen here, by sampling the newest
runs of each. Totals are exact where the rollups know them (project, workflow, status), and where
one scan, or the index of tags, has few runs. Beyond that they are estimated from the planner's
statistics: counting would cost more, the more runs there are.
"""

from collections.abc import Iterable, Mapping
from datetime import MAXYEAR, timedelta
from typing import Any, Final, NamedTuple

from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.postgres.connections import ReadConnection
from runfold_storage.read_models.summaries import Total, Watermark
from runfold_storage.read_models.watermarks import watermark_of
from runfold_storage.search.lookup import find_runs

from . import sql
from .index_scans import IndexScan, covering_scan, early_of, index_scans_of
from .keyset import NEWEST_FIRST, KeysetPosition

NONE: Final = Total(0, "exact")
_OPEN: Final = {"queued", "running"}
_HOUR: Final = timedelta(hours=1)


class ListLimits(NamedTuple):
    """How many runs a list reads."""

    first_examined: int = 2_000
    """In the first batch of a page, or more if few of the newest match; batches double."""
    examined: int = 50_000
    """For one page."""
    probed: int = 500
    """Of each scan, to choose one for a further page."""
    counted: int = 1_000
    """On a covering scan, to count them."""
    sampled: int = 500
    """The newest of each scan, to sample for matches."""
    sampled_for_tags: int = 1_000
    """The same for tags: enough to tell rare tags from those of one run in two hundred."""
    sampled_for_text: int = 250
    """The same before the search index is used."""
    tagged: int = 2_000
    """Runs with the tags up to which the index of tags is used, for it has no order."""
    common_text: float = 0.025
    """Share of the newest runs beyond which a text fills a page in the first batch of a scan."""


DEFAULT_LIMITS: Final = ListLimits()


class ListPlan(NamedTuple):
    """A filter, the scans that contain its runs, and the parameters of their statements."""

    run_filter: RunFilter
    scans: tuple[IndexScan, ...]
    parameters: Mapping[str, Any]
    limits: ListLimits


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

    `length` is the number of runs on a covering scan, counted up to one beyond the limit.
    """

    n: int
    length: int | None
    watermark: Watermark


def read_known_count(
    connection: ReadConnection, run_filter: RunFilter, limits: ListLimits
) -> KnownCount:
    """Read what the rollups and indexes know, and how far the fold has come."""
    scan = None if run_filter.is_counted else covering_scan(run_filter)
    parameters = run_filter.parameters() | {"most": limits.counted + 1}
    rows = connection.execute(sql.known_count(run_filter.counted(), scan), parameters).fetchall()
    n, length = (int(rows[0].known), rows[0].length) if rows else (0, None)
    return KnownCount(n, length, watermark_of(rows))


def make_plan(
    connection: ReadConnection, run_filter: RunFilter, limits: ListLimits
) -> ListPlan | None:
    """Return the plan of a list; None if the rollups say that no run has such a status."""
    first = end = None
    if run_filter.statuses and set(run_filter.statuses) <= _OPEN:
        hours = connection.execute(sql.open_hours(run_filter), run_filter.parameters())
        ((first, last),) = hours.fetchall()
        if first is None:
            return None
        end = last + _HOUR if last.year < MAXYEAR else None
    parameters = run_filter.parameters() | {"first": first, "end": end}
    if run_filter.started_after is not None:
        parameters["early"] = early_of(run_filter.started_after)
    scans = index_scans_of(run_filter, has_first=first is not None, has_end=end is not None)
    return ListPlan(run_filter, scans, parameters, limits)


def choose_scan(connection: ReadConnection, plan: ListPlan, position: KeysetPosition) -> IndexScan:
    """Return the scan with the fewest runs from this position on."""
    if len(plan.scans) == 1:
        return plan.scans[0]
    most = plan.limits.probed
    parameters = {**plan.parameters, **position.parameters(), "most": most}
    samples = connection.execute(sql.reach_of_scans(plan.scans, position), parameters)
    number: int = _sparsest(samples, position, most).number
    return plan.scans[number]


def estimate_list(connection: ReadConnection, plan: ListPlan, known: KnownCount) -> ListEstimate:
    """Count or estimate the matches, and choose a scan for the newest page."""
    run_filter, limits = plan.run_filter, plan.limits
    if run_filter.is_counted:
        scan = choose_scan(connection, plan, NEWEST_FIRST)
        return ListEstimate(Total(known.n, "exact"), scan)
    if known.length is not None:
        (scan,) = plan.scans
        if known.length <= limits.counted:
            return ListEstimate(Total(known.length, "exact"), scan)
        return ListEstimate(_estimate_matches(connection, plan, known, known.length, 1), scan)
    most = limits.sampled_for_tags if run_filter.tags else limits.sampled
    if run_filter.has_text:
        most = limits.sampled_for_text
    samples = connection.execute(
        sql.sample_scans(run_filter, plan.scans), {**plan.parameters, "most": most}
    )
    sample = _sparsest(samples, NEWEST_FIRST, most)
    scan, share = plan.scans[sample.number], sample.matching / (sample.n or 1)
    if sample.n < most:
        return ListEstimate(Total(sample.matching, "exact"), scan)
    if run_filter.has_text and share <= limits.common_text:
        run_keys = find_runs(connection, run_filter)
        if run_keys is not None:
            shards, keys = [shard for shard, _ in run_keys], [run for _, run in run_keys]
            found = Candidates("keys", {"shards": shards, "keys": keys})
            _, total = _count(connection, plan, found)
            return ListEstimate(total, scan, found)
    if run_filter.tags and known.n * sample.tagged / sample.n <= 2 * limits.tagged:
        tagged = Candidates("tags", {"most": limits.tagged + 1})
        n, total = _count(connection, plan, tagged)
        if n <= limits.tagged:
            return ListEstimate(total, scan, tagged)
    total = _estimate_matches(connection, plan, known, sample.matching, share)
    return ListEstimate(total, scan, share=share)


def _sparsest(samples: Iterable[Any], position: KeysetPosition, most: int) -> Any:
    """Return the sample, of up to `most` runs each, of the scan with the fewest runs."""

    def rank(sample: Any) -> tuple[bool, float]:
        if sample.n < most:
            return False, sample.n
        reached: float = sample.reached.timestamp()
        return True, -reached if position.is_newer else reached

    return min(samples, key=rank)


def _count(connection: ReadConnection, plan: ListPlan, found: Candidates) -> tuple[int, Total]:
    """Return the number of candidates, and of the matches among them."""
    statement = sql.count_candidates(plan.run_filter, found.among)
    (sample,) = connection.execute(statement, {**plan.parameters, **found.parameters})
    return sample.n, Total(sample.matching, "exact")


def _estimate_matches(
    connection: ReadConnection, plan: ListPlan, known: KnownCount, least: int, share: float
) -> Total:
    """Estimate by the statistics of the last ANALYZE; texts by their share of the newest runs."""
    rest = plan.run_filter.without_texts()
    estimate = known.n
    if not (plan.run_filter.has_text and rest.is_counted):
        ((plans,),) = connection.execute(sql.explain_matches(rest), rest.parameters())
        estimate = int(plans[0]["Plan"]["Plan Rows"])
    if plan.run_filter.has_text:
        estimate = round(estimate * share)
    return Total(min(max(least, estimate), known.n), "estimate")

"""Plan a list: count or estimate the matches, and choose the index scan with the fewest other runs.

PostgreSQL's planner assumes independent filters, so the scan is chosen here, by sampling the newest
runs of each. Totals are exact where the rollups know them (project, workflow, status), and where
one scan, or the index of tags, has few runs. Beyond that they are estimated from the planner's
statistics: counting would cost more, the more runs there are.
"""

from collections.abc import Iterable
from datetime import MAXYEAR
from typing import Any, Final, NamedTuple

from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.postgres.connections import ReadConnection
from runfold_storage.read_models.summaries import Total
from runfold_storage.read_models.watermarks import watermark_of
from runfold_storage.search.lookup import MAX_BEHIND, MAX_FOUND, find_runs

from . import sql
from .index_scans import HOUR, IndexScan, covering_scan, early_of, index_scans_of
from .sql import NEWEST_FIRST, KeysetPosition

_NONE: Final = Total(0, "exact")
_OPEN: Final = {"queued", "running"}


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
    found: int = MAX_FOUND
    """That the search index may return; it has no order."""
    behind: int = MAX_BEHIND
    """Changes that the index may be behind; their runs are compared one by one."""
    exported: int = 1_000
    """In one read of an export."""
    exported_nodes: int = 20_000
    """Attempts at nodes in one read of an export; a single run may have more."""


DEFAULT_LIMITS: Final = ListLimits()


class ListPlan:
    """The plan of a list; `connection` is in a transaction with one snapshot."""

    def __init__(
        self, connection: ReadConnection, run_filter: RunFilter, limits: ListLimits
    ) -> None:
        self.run_filter = run_filter
        self.limits = limits
        self.among: sql.Among | None = None
        """Read few runs named by an index, which include all matches, instead of the scan."""
        self.share = 1.0
        """The share of matches among the newest runs of the scan."""
        self._connection = connection
        self._parameters = run_filter.parameters()
        covering = None if run_filter.is_counted else covering_scan(run_filter)
        known = self.rows(sql.known_count(run_filter.counted(), covering), most=limits.counted + 1)
        self.watermark = watermark_of(known)
        self._known = int(known[0].known) if known else 0
        """The number of runs of this project, workflow and status, by the rollups."""
        self.total = _NONE
        self._scans = self._find_scans() if self._known else ()
        if self._scans:
            self.scan = self._scans[0]
            self.total = self._estimate(known[0].length)

    def rows(self, statement: str, **parameters: Any) -> list[Any]:
        """Run a statement with these parameters, beside those of the filter and its scans."""
        return self._connection.execute(statement, {**self._parameters, **parameters}).fetchall()

    def choose_scan(self, position: KeysetPosition) -> IndexScan:
        """Return the scan with the fewest runs from this position on."""
        if len(self._scans) == 1:
            return self._scans[0]
        most = self.limits.probed
        reach = sql.reach_of_scans(self._scans, position)
        samples = self.rows(reach, **position.parameters(), most=most)
        number: int = _sparsest(samples, position, most).number
        return self._scans[number]

    def _find_scans(self) -> tuple[IndexScan, ...]:
        """Return the scans that contain the runs; none if no run has such a status."""
        run_filter, bounds = self.run_filter, self._parameters
        if run_filter.started_after is not None:
            bounds["early"] = early_of(run_filter.started_after)
        if run_filter.statuses and set(run_filter.statuses) <= _OPEN:
            ((first, last),) = self.rows(sql.open_hours(run_filter))
            if first is None:
                return ()
            bounds["first"] = first
            if last.year < MAXYEAR:
                bounds["end"] = last + HOUR
        has_first, has_end = "first" in bounds, "end" in bounds
        return index_scans_of(run_filter, has_first=has_first, has_end=has_end)

    def _estimate(self, length: int | None) -> Total:
        """Count or estimate the matches, and choose a scan or candidates for the newest page.

        `length` is the number of runs on a covering scan, counted up to one beyond the limit.
        """
        run_filter, limits = self.run_filter, self.limits
        if run_filter.is_counted:
            self.scan = self.choose_scan(NEWEST_FIRST)
            return Total(self._known, "exact")
        if length is not None:
            return Total(length, "exact") if length <= limits.counted else self._explain(length)
        most = limits.sampled_for_tags if run_filter.tags else limits.sampled
        if run_filter.has_text:
            most = limits.sampled_for_text
        samples = self.rows(sql.sample_scans(run_filter, self._scans), most=most)
        sample = _sparsest(samples, NEWEST_FIRST, most)
        self.scan, self.share = self._scans[sample.number], sample.matching / (sample.n or 1)
        if sample.n < most:
            return Total(sample.matching, "exact")
        if run_filter.has_text and self.share <= limits.common_text:
            run_keys = find_runs(
                self._connection, run_filter, most=limits.found, max_behind=limits.behind
            )
            if run_keys is not None:
                shards, keys = [shard for shard, _ in run_keys], [run for _, run in run_keys]
                self._parameters |= {"shards": shards, "keys": keys}
                return self._count("keys")
        if run_filter.tags and self._known * sample.tagged / sample.n <= 2 * limits.tagged:
            self._parameters["most_tagged"] = limits.tagged + 1
            total = self._count("tags")
            if self.among is not None:
                return total
        return self._explain(sample.matching)

    def _count(self, among: sql.Among) -> Total:
        """Count the matches among candidates, which are read unless there are too many."""
        (sample,) = self.rows(sql.count_candidates(self.run_filter, among))
        if among == "keys" or sample.n <= self.limits.tagged:
            self.among = among
        return Total(sample.matching, "exact")

    def _explain(self, least: int) -> Total:
        """Estimate by the statistics of the last ANALYZE; texts by their share of the newest."""
        rest = self.run_filter.without_texts()
        estimate = self._known
        if not (self.run_filter.has_text and rest.is_counted):
            ((plans,),) = self.rows(sql.explain_matches(rest))
            estimate = int(plans[0]["Plan"]["Plan Rows"])
        if self.run_filter.has_text:
            estimate = round(estimate * self.share)
        return Total(min(max(least, estimate), self._known), "estimate")


def _sparsest(samples: Iterable[Any], position: KeysetPosition, most: int) -> Any:
    """Return the sample, of up to `most` runs each, of the scan with the fewest runs."""

    def rank(sample: Any) -> tuple[bool, float]:
        if sample.n < most:
            return False, sample.n
        reached: float = sample.reached.timestamp()
        return True, -reached if position.is_newer else reached

    return min(samples, key=rank)

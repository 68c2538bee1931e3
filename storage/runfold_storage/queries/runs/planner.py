"""How many runs a filter means, and on which way the fewest others lie.

Exact where rollups know it (project, workflow, status), and where one way, or one index of tags,
has few runs. Beyond that the planner's statistics are asked: counting would cost the more the more
runs there are.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, func, select, union_all

from runfold_storage.filters.run_filter import FilterForm, RunFilter
from runfold_storage.postgres.statements import Statement
from runfold_storage.read_models.summaries import Total, Watermark
from runfold_storage.read_models.watermarks import watermark_of
from runfold_storage.search.lookup import find_runs
from runfold_storage.tables import pending_rollups, rollups_hourly

from .index_scans import IndexScan, covering_scan, early_of, index_scans_of
from .keyset import NEWEST_FIRST, KeysetPosition
from .sql import Among, all_of, known_runs, reaches_of, sample_among, samples_of

PROBED: Final = 500


class ListPlan(NamedTuple):
    """A filter, and how it is asked."""

    wanted: RunFilter
    form: FilterForm
    ways: tuple[IndexScan, ...]
    parameters: Mapping[str, Any]


def make_plan(wanted: RunFilter, first: datetime | None, end: datetime | None) -> ListPlan:
    """None of the runs began before `first` or from `end` on."""
    form = wanted.form()
    parameters = wanted.parameters() | {"first": first, "end": end}
    if wanted.started_after is not None:
        parameters["early"] = early_of(wanted.started_after)
    ways = index_scans_of(form, has_first=first is not None, has_end=end is not None)
    return ListPlan(wanted, form, ways, parameters)


def choose(connection: Connection, question: ListPlan, direction: KeysetPosition) -> IndexScan:
    """The way on which the fewest runs lie from here on."""
    ways = question.ways
    if len(ways) == 1:
        return ways[0]
    given = {**question.parameters, **direction.parameters(), "most": PROBED}
    looks = reaches_of(ways, direction.form()).run(connection, given)
    fewest: int = fewest_of(looks, direction, PROBED).number
    return ways[fewest]


def fewest_of(looks: Iterable[Any], direction: KeysetPosition, most: int) -> Any:
    """Of looks at `most` runs of each way, that at the way with the fewest; see `reaches_of`."""

    def rank(look: Any) -> tuple[bool, float]:
        if look.n < most:
            return False, look.n
        reached: float = look.reached.timestamp()
        return True, -reached if direction.is_newer else reached

    return min(looks, key=rank)


_ROWS: Final = "Plan Rows"


def estimate_rows(connection: Connection, query: Statement, parameters: Mapping[str, Any]) -> int:
    """From the statistics that ANALYZE made last."""
    text = f"EXPLAIN (FORMAT JSON) {query.text}"
    ((plans,),) = query._replace(text=text, row=tuple).run(connection, parameters)
    return int(plans[0]["Plan"][_ROWS])


COUNTED: Final = 1_000
"""Runs that are counted where an index has those that are meant and no others."""
SAMPLED: Final = 500
"""The newest runs of a way that are looked at to count those that match."""
SAMPLED_FOR_TAGS: Final = 1_000
"""The same to tell tags that few have from those that one run in two hundred has."""
SAMPLED_FOR_TEXT: Final = 250
"""The same before the index of texts is asked."""
MAX_TAGGED: Final = 2_000
"""Runs with the tags asked for up to which their index is used: it knows no order."""

NONE: Final = Total(0, "exact")

_COMMON_TEXT: Final = 0.025
"""Texts that as many of the newest runs have fill a page on the first stretch of a walk."""


class Candidates(NamedTuple):
    """Runs that an index named, among which all are."""

    kind: Among
    parameters: Mapping[str, Any]


class ListEstimate(NamedTuple):
    """The total, the way to take, and the few runs among which all are, if an index knows them.

    `share`: of the newest runs of that way so many match.
    """

    total: Total
    way: IndexScan
    among: Candidates | None = None
    share: float = 1


class KnownCount(NamedTuple):
    """What is known before any run is looked at: runs of this project, workflow and status.

    `length`: where an index has the runs that are meant and no others, how many, or that it is more
    than `COUNTED`.
    """

    n: int
    length: int | None
    watermark: Watermark


def read_known(connection: Connection, wanted: RunFilter) -> KnownCount:
    """What rollups and indices tell, and how far the fold is."""
    counted = wanted.counted()
    way = None if wanted.is_counted else covering_scan(wanted.form())
    given = wanted.parameters() | {"most": COUNTED + 1}
    rows = known_runs(counted.form(), way).run(connection, given)
    n = int(rows[0].known) if rows else 0
    return KnownCount(n, rows[0].length if rows and way else None, watermark_of(rows))


def survey(connection: Connection, question: ListPlan, known: KnownCount) -> ListEstimate:
    """Count, and choose a way for the newest page."""
    wanted = question.wanted
    if wanted.is_counted:
        return ListEstimate(Total(known.n, "exact"), choose(connection, question, NEWEST_FIRST))
    if known.length is not None:
        (way,) = question.ways
        if known.length <= COUNTED:
            return ListEstimate(Total(known.length, "exact"), way)
        estimate = _estimate(connection, question, known.n, 1)
        return ListEstimate(_about(estimate, known.length, known.n), way)
    most = _sampled(wanted)
    given = {**question.parameters, "most": most}
    samples = samples_of(question.form, question.ways).run(connection, given)
    sample = fewest_of(samples, NEWEST_FIRST, most)
    way, share = question.ways[sample.number], sample.matching / (sample.n or 1)
    if sample.n < most:
        return ListEstimate(Total(sample.matching, "exact"), way)
    if wanted.has_text and share <= _COMMON_TEXT:
        places = find_runs(connection, wanted)
        if places is not None:
            shards, keys = [shard for shard, _ in places], [run for _, run in places]
            few = Candidates("places", {"shards": shards, "keys": keys})
            return ListEstimate(_count(connection, question, few).total, way, few)
    if wanted.tags and known.n * sample.tagged / sample.n <= 2 * MAX_TAGGED:
        few = Candidates("tags", {"most": MAX_TAGGED + 1})
        counted = _count(connection, question, few)
        if counted.n <= MAX_TAGGED:
            return ListEstimate(counted.total, way, few)
    estimate = _estimate(connection, question, known.n, share)
    return ListEstimate(_about(estimate, sample.matching, known.n), way, share=share)


def _sampled(wanted: RunFilter) -> int:
    if wanted.has_text:
        return SAMPLED_FOR_TEXT
    return SAMPLED_FOR_TAGS if wanted.tags else SAMPLED


class _Counted(NamedTuple):
    """Of how many, and how many of these match."""

    n: int
    total: Total


def _count(connection: Connection, question: ListPlan, few: Candidates) -> _Counted:
    given = {**question.parameters, **few.parameters}
    (sample,) = sample_among(question.form, few.kind).run(connection, given)
    return _Counted(sample.n, Total(sample.matching, "exact"))


def _about(estimate: int, least: int, most: int) -> Total:
    return Total(min(max(least, estimate), most), "estimate")


def _estimate(connection: Connection, question: ListPlan, known: int, share: float) -> int:
    """Of texts the planner knows nothing: the newest runs tell how many have them."""
    wanted = question.wanted
    rest = wanted.without_texts()
    if wanted.has_text and rest.is_counted:
        return round(known * share)
    estimate = estimate_rows(connection, all_of(rest.form()), rest.parameters())
    return round(estimate * share) if wanted.has_text else estimate


def open_hours(
    connection: Connection, statuses: Iterable[str]
) -> tuple[datetime | None, datetime | None]:
    """The first and the last hour in which runs began that have one of these statuses now."""
    wanted = list(statuses)
    hours = union_all(
        select(rollups_hourly.c.hour).where(
            rollups_hourly.c.is_open, rollups_hourly.c.status.in_(wanted)
        ),
        select(pending_rollups.c.hour).where(
            pending_rollups.c.node == "", pending_rollups.c.status.in_(wanted)
        ),
    ).subquery()
    found = connection.execute(select(func.min(hours.c.hour), func.max(hours.c.hour))).one()
    return found[0], found[1]

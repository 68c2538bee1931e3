"""How many runs a filter means, and on which way the fewest others lie.

Exact where rollups know it (project, workflow, status), and where one way, or one index of tags,
has few runs. Beyond that the planner's statistics are asked: counting would cost the more the more
runs there are.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, func, select

from .directions import NEWEST_FIRST
from .estimates import estimate_rows
from .filters import RunFilter
from .list_statements import Among, all_of, known_runs, length_of, sample_among, sample_of_way
from .questions import Question, choose
from .search_lookup import look_up
from .summaries import Total, Watermark
from .tables import stats
from .watermarks import watermark_of
from .ways import Way

COUNTED: Final = 1_000
"""Runs of a way that are looked at to count those that match."""
MAX_TAGGED: Final = 2_000
"""Runs with the tags asked for up to which their index is used: it knows no order."""
SAMPLED: Final = 250
"""The newest runs of a way that are looked at for a text before its index is asked."""

NONE: Final = Total(0, "exact")

_COMMON_TEXT: Final = 0.025
"""Texts that as many of the newest runs have fill a page on the first stretch of a walk."""


class Few(NamedTuple):
    """Runs that an index named, among which all are."""

    kind: Among
    parameters: Mapping[str, Any]


class Survey(NamedTuple):
    """The total, the way to take, and the few runs among which all are, if an index knows them.

    `share`: of the newest runs of that way so many match.
    """

    total: Total
    way: Way
    among: Few | None = None
    share: float = 1


class _Sample(NamedTuple):
    """How many runs there are, how many of them match, and how many have the tags."""

    examined: int
    matching: int
    tagged: int


def read_known(connection: Connection, wanted: RunFilter) -> tuple[int, Watermark]:
    """How many runs there are of this project, workflow and status, and how far the fold is."""
    counted = wanted.counted()
    rows = known_runs(counted.form()).run(connection, counted.parameters()).all()
    return int(rows[0].known or 0) if rows else 0, watermark_of(rows)


def survey(connection: Connection, question: Question, known: int) -> Survey:
    """Count, and choose a way for the newest page; `known`: see `read_known`."""
    wanted = question.wanted
    way = choose(connection, question, NEWEST_FIRST)
    if wanted.is_counted:
        return Survey(Total(known, "exact"), way)
    if way.is_whole:
        return Survey(_count_way(connection, question, way, known), way)
    if wanted.has_text and (found := _look_up(connection, question, way)) is not None:
        return found
    examined, matching, tagged = _sample(connection, question, way, COUNTED + 1)
    if examined <= COUNTED:
        return Survey(Total(matching, "exact"), way)
    if wanted.tags and known * tagged / examined <= 2 * MAX_TAGGED:
        few = Few("tags", {"most": MAX_TAGGED + 1})
        n, n_matching, _ = _sample_few(connection, question, few)
        if n <= MAX_TAGGED:
            return Survey(Total(n_matching, "exact"), way, few)
    share = matching / examined
    estimate = _estimate(connection, question, known, share)
    return Survey(Total(min(max(matching, estimate), known), "estimate"), way, share=share)


def _count_way(connection: Connection, question: Question, way: Way, known: int) -> Total:
    """All of a way."""
    given = {**question.parameters, "most": COUNTED + 1}
    n: int = length_of(way).run(connection, given).scalar_one()
    if n <= COUNTED:
        return Total(n, "exact")
    return Total(min(max(n, _estimate(connection, question, known, 1)), known), "estimate")


def _look_up(connection: Connection, question: Question, way: Way) -> Survey | None:
    """By the index of texts, unless so many of the newest runs match that a walk is better."""
    examined, matching, _ = _sample(connection, question, way, SAMPLED)
    if examined < SAMPLED:
        return Survey(Total(matching, "exact"), way)
    if matching > examined * _COMMON_TEXT:
        return None
    places = look_up(connection, question.wanted)
    if places is None:
        return None
    shards, keys = [shard for shard, _ in places], [run for _, run in places]
    few = Few("places", {"shards": shards, "keys": keys})
    return Survey(Total(_sample_few(connection, question, few).matching, "exact"), way, few)


def _estimate(connection: Connection, question: Question, known: int, share: float) -> int:
    """Of texts the planner knows nothing: the newest runs tell how many have them."""
    wanted = question.wanted
    rest = wanted.without_texts()
    if wanted.has_text and rest.is_counted:
        return round(known * share)
    estimate = estimate_rows(connection, all_of(rest.form()), rest.parameters())
    return round(estimate * share) if wanted.has_text else estimate


def _sample(connection: Connection, question: Question, way: Way, most: int) -> _Sample:
    """Of the newest runs of a way."""
    given = {**question.parameters, "most": most}
    return _Sample._make(sample_of_way(question.form, way).run(connection, given).one())


def _sample_few(connection: Connection, question: Question, few: Few) -> _Sample:
    given = {**question.parameters, **few.parameters}
    return _Sample._make(sample_among(question.form, few.kind).run(connection, given).one())


def open_hours(
    connection: Connection, statuses: Iterable[str]
) -> tuple[datetime | None, datetime | None]:
    """The first and the last hour in which runs began that have one of these statuses now."""
    found = connection.execute(
        select(func.min(stats.c.hour), func.max(stats.c.hour)).where(
            stats.c.is_open, stats.c.status.in_(list(statuses))
        )
    ).one()
    return found[0], found[1]

"""How many runs a filter means, and on which way the fewest others lie.

Exact where rollups know it (project, workflow, status), and where one way, or one index of tags,
has few runs. Beyond that the planner's statistics are asked: counting would cost the more the more
runs there are.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import reduce
from operator import add
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Subquery, and_, func, select

from .estimates import estimate_rows
from .filters import RunFilter
from .search_lookup import look_up
from .summaries import Total, Watermark
from .tables import RUN_STATUSES, runs, stats, stats_days
from .watermarks import POSITIONS, watermark_of
from .ways import NEWEST_FIRST, SUMMARY_COLUMNS, Way, choose

COUNTED: Final = 1_000
"""Runs of a way that are looked at to count those that match."""
MAX_TAGGED: Final = 2_000
"""Runs with the tags asked for up to which their index is used: it knows no order."""
SAMPLED: Final = 250
"""The newest runs of a way that are looked at for a text before its index is asked."""

NONE: Final = Total(0, "exact")

_COMMON_TEXT: Final = 0.025
"""Texts that as many of the newest runs have fill a page on the first stretch of a walk."""


class Survey(NamedTuple):
    """The total, the way to take, and the few runs among which all are, if an index knows them.

    `share`: of the newest runs of that way so many match.
    """

    total: Total
    way: Way
    among: Subquery | None = None
    share: float = 1


def read_known(connection: Connection, wanted: RunFilter) -> tuple[int, Watermark]:
    """How many runs there are of this project, workflow and status, and how far the fold is."""
    days = stats_days.c
    conditions: list[ColumnElement[bool]] = [days.workflow == (wanted.workflow or "")]
    if wanted.project is not None or wanted.workflow is None:
        conditions.append(days.project == (wanted.project or ""))
    statuses = [days[status] for status in wanted.statuses or RUN_STATUSES]
    counted = select(func.sum(reduce(add, statuses))).where(*conditions).scalar_subquery()
    rows = connection.execute(POSITIONS.add_columns(counted.label("known"))).all()
    return int(rows[0].known or 0) if rows else 0, watermark_of(rows)


def survey(connection: Connection, wanted: RunFilter, ways: list[Way], known: int) -> Survey:
    """Count, and choose a way for the newest page; `known`: see `read_known`."""
    way = choose(connection, ways, NEWEST_FIRST)
    if wanted.is_counted:
        return Survey(Total(known, "exact"), way)
    if way.is_whole:
        return Survey(_count_way(connection, wanted, way, known), way)
    if wanted.has_text and (found := _look_up(connection, wanted, way)) is not None:
        return found
    examined, matching, tagged = _sample(connection, way.walk(SUMMARY_COLUMNS, COUNTED + 1), wanted)
    if examined <= COUNTED:
        return Survey(Total(matching, "exact"), way)
    if wanted.tags and known * tagged / examined <= 2 * MAX_TAGGED:
        n, n_matching, _ = _sample(connection, with_tags(wanted, MAX_TAGGED + 1), wanted)
        if n <= MAX_TAGGED:
            return Survey(Total(n_matching, "exact"), way, with_tags(wanted))
    share = matching / examined
    estimate = _estimate(connection, wanted, known, share)
    return Survey(Total(min(max(matching, estimate), known), "estimate"), way, share=share)


def _count_way(connection: Connection, wanted: RunFilter, way: Way, known: int) -> Total:
    """All of a way: its index alone is read."""
    counted = select(func.count()).select_from(way.walk([], COUNTED + 1))
    n: int = connection.execute(counted).scalar_one()
    if n <= COUNTED:
        return Total(n, "exact")
    return Total(min(max(n, _estimate(connection, wanted, known, 1)), known), "estimate")


def _look_up(connection: Connection, wanted: RunFilter, way: Way) -> Survey | None:
    """By the index of texts, unless so many of the newest runs match that a walk is better."""
    examined, matching, _ = _sample(connection, way.walk(SUMMARY_COLUMNS, SAMPLED), wanted)
    if examined < SAMPLED:
        return Survey(Total(matching, "exact"), way)
    if matching > examined * _COMMON_TEXT:
        return None
    among = look_up(connection, wanted)
    if among is None:
        return None
    _, matching, _ = _sample(connection, among, wanted)
    return Survey(Total(matching, "exact"), way, among)


def _estimate(connection: Connection, wanted: RunFilter, known: int, share: float) -> int:
    """Of texts the planner knows nothing: the newest runs tell how many have them."""
    rest = wanted.without_texts()
    if wanted.has_text and rest.is_counted:
        return round(known * share)
    estimate = estimate_rows(connection, select(runs.c.run).where(*rest.conditions()))
    return round(estimate * share) if wanted.has_text else estimate


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


def with_tags(wanted: RunFilter, most: int | None = None) -> Subquery:
    """The runs that have the tags, in no order."""
    columns = [*SUMMARY_COLUMNS]
    tagged = select(*columns).where(runs.c.tags.contains(dict(wanted.tags)))
    # A fence: what surrounds it must not keep the planner from the index of tags.
    return tagged.limit(most).offset(0).subquery()


def _sample(connection: Connection, sample: Subquery, wanted: RunFilter) -> tuple[int, int, int]:
    """How many runs there are in it, how many match, and how many have the tags."""
    tagged = sample.c.tags.contains(dict(wanted.tags))
    found = connection.execute(
        select(
            func.count(),
            func.count().filter(and_(*wanted.conditions(sample.c))),
            func.count().filter(tagged),
        ).select_from(sample)
    ).one()
    return found[0], found[1], found[2]

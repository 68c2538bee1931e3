"""The queries that lists are made of, each made once for all filters of a form.

Parameters are those of the form and of the direction; `first`, `end` and `early` of the ways (see
`ways`); how many runs are walked at most (`most`) and are on the page (`limit`, `offset`).
"""

from functools import lru_cache, reduce
from operator import add
from typing import Any, Final, Literal

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Subquery,
    and_,
    bindparam,
    func,
    literal,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB

from .directions import NEWEST_FIRST, DirectionForm
from .filters import FilterForm
from .statements import Statement, keep
from .tables import RUN_STATUSES, runs, stats_days
from .watermarks import POSITIONS
from .ways import SUMMARY_COLUMNS, Way, runs_at

_kept = lru_cache(500)
"""Each of these functions keeps so many, some 25 kB each."""
_NEWEST_FIRST: Final = NEWEST_FIRST.form()

Among = Literal["tags", "places"]
"""Few runs that an index named: those that have the tags, `most` of them, or those at `places`
(see `runs_at`)."""


@_kept
def known_runs(form: FilterForm) -> Statement:
    """`known`, how many runs there are of this project, workflow and status; the positions too.

    For forms that have nothing else.
    """
    days = stats_days.c
    conditions = [days.workflow == ("" if form.workflow is None else bindparam("workflow"))]
    if form.project is not None or form.workflow is None:
        conditions.append(days.project == ("" if form.project is None else bindparam("project")))
    statuses = [days[status] for status in form.statuses or RUN_STATUSES]
    counted = select(func.sum(reduce(add, statuses))).where(*conditions).scalar_subquery()
    return keep(POSITIONS.add_columns(counted.label("known")))


@_kept
def whole_page(way: Way, direction: DirectionForm) -> Statement:
    """A page of a way that is whole."""
    if len(way.stretches) == 1:
        page = select(*SUMMARY_COLUMNS).where(*way.stretches[0], *direction.conditions())
        return keep(_bounded(page.order_by(*direction.order(runs.c))))
    merged = way.walk(SUMMARY_COLUMNS, direction)
    return keep(_bounded(select(merged).order_by(*direction.order(merged.c))))


@_kept
def walked_page(form: FilterForm, way: Way, direction: DirectionForm) -> Statement:
    """Those of a filter on a stretch of a way."""
    return keep(_page(form, way.walk(SUMMARY_COLUMNS, direction), direction))


@_kept
def page_among(form: FilterForm, among: Among, direction: DirectionForm) -> Statement:
    """Those of a filter among few."""
    return keep(_page(form, _few(among), direction))


@_kept
def end_of_walk(way: Way, direction: DirectionForm) -> Statement:
    """The key of the last run of a stretch; nothing if the way ends there."""
    walked = way.walk([], direction)
    last = select(walked.c.created_at, walked.c.run).order_by(*direction.order(walked.c))
    return keep(last.offset(bindparam("most", type_=Integer) - 1).limit(1))


@_kept
def sample_of_way(form: FilterForm, way: Way) -> Statement:
    """Of the newest runs of a way: how many there are, match, and have the tags."""
    return keep(_sample(form, way.walk(SUMMARY_COLUMNS, _NEWEST_FIRST)))


@_kept
def sample_among(form: FilterForm, among: Among) -> Statement:
    """The same of few."""
    return keep(_sample(form, _few(among)))


@_kept
def length_of(way: Way) -> Statement:
    """How many runs lie on a way, as far as it is walked; its index alone is read."""
    return keep(select(func.count()).select_from(way.walk([], _NEWEST_FIRST)))


@_kept
def reach_of(ways: tuple[Way, ...], direction: DirectionForm) -> Statement:
    """By `number` of each way how many runs there are, and the time of the last one."""
    reach = func.max if direction.is_newer else func.min
    probes = []
    for number, way in enumerate(ways):
        walked = way.walk([], direction)
        probes.append(
            select(
                literal(number).label("number"),
                func.count().label("n"),
                reach(walked.c.created_at).label("reached"),
            ).select_from(walked)
        )
    together = union_all(*probes).subquery()
    return keep(select(together))


@_kept
def all_of(form: FilterForm) -> Statement:
    """All runs, by whatever plan."""
    return keep(select(runs.c.run).where(*form.conditions()))


def _few(among: Among) -> Subquery:
    if among == "places":
        return select(*SUMMARY_COLUMNS).select_from(runs_at()).subquery()
    tagged = runs.c.tags.contains(bindparam("tags", type_=JSONB))
    # A fence: what surrounds it must not keep the planner from the index of tags.
    most = bindparam("most", type_=Integer)
    return select(*SUMMARY_COLUMNS).where(tagged).limit(most).offset(0).subquery()


def _page(form: FilterForm, source: Subquery, direction: DirectionForm) -> Select[Any]:
    columns = (source.c[column.name] for column in SUMMARY_COLUMNS)
    conditions = [*form.conditions(source.c), *direction.conditions(source.c)]
    return _bounded(select(*columns).where(*conditions).order_by(*direction.order(source.c)))


def _bounded(page: Select[Any]) -> Select[Any]:
    limit, offset = (bindparam(name, type_=Integer) for name in ("limit", "offset"))
    return page.limit(limit).offset(offset)


def _sample(form: FilterForm, sample: Subquery) -> Select[Any]:
    matching: ColumnElement[bool] = and_(True, *form.conditions(sample.c))
    tagged = sample.c.tags.contains(bindparam("tags", type_=JSONB))
    columns: list[Any] = [func.count().filter(each) for each in (matching, tagged)]
    return select(func.count(), *columns).select_from(sample)

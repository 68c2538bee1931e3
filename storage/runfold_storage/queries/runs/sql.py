"""The queries that lists are made of, each made once for all filters of a form.

Parameters are those of the form and of the direction; `first`, `end` and `early` of the ways (see
`ways`); how many runs are walked at most (`most`) and are on the page (`limit`, `offset`).
"""

from collections.abc import Sequence
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

from runfold_storage.filters.run_filter import FilterForm
from runfold_storage.filters.summary_columns import SUMMARY_COLUMNS, runs_at
from runfold_storage.postgres.statements import Statement, compile_statement
from runfold_storage.read_models.watermarks import POSITIONS
from runfold_storage.tables import RUN_STATUSES, pending_rollups, rollups_daily, runs

from .index_scans import IndexScan
from .keyset import NEWEST_FIRST, DirectionForm

_kept = lru_cache(500)
"""Each of these functions keeps so many, some 25 kB each."""
_NEWEST_FIRST: Final = NEWEST_FIRST.form()

Among = Literal["tags", "places"]
"""Few runs that an index named: those that have the tags, `most` of them, or those at `places`
(see `runs_at`)."""


@_kept
def known_runs(form: FilterForm, way: IndexScan | None) -> Statement:
    """`known`, how many runs there are of this project, workflow and status; the positions too.

    For forms that have nothing else. `length` is how many runs lie on the way, as far as it is
    walked; its index alone is read.
    """
    days = rollups_daily.c
    conditions = [days.workflow == ("" if form.workflow is None else bindparam("workflow"))]
    if form.project is not None or form.workflow is None:
        conditions.append(days.project == ("" if form.project is None else bindparam("project")))
    statuses = [days[status] for status in form.statuses or RUN_STATUSES]
    counted = select(func.sum(reduce(add, statuses))).where(*conditions).scalar_subquery()
    waiting = _unmerged_runs(form).scalar_subquery()
    sum_ = func.coalesce(counted, 0) + func.coalesce(waiting, 0)
    known = POSITIONS.add_columns(sum_.label("known"))
    if way is None:
        return compile_statement(known)
    walked = way.walk([], _NEWEST_FIRST)
    length = select(func.count()).select_from(walked).scalar_subquery()
    return compile_statement(known.add_columns(length.label("length")))


def _unmerged_runs(form: FilterForm) -> Select[Any]:
    """How many more than the rollups know."""
    waiting = pending_rollups.c
    conditions = [waiting.node == ""]
    if form.workflow is not None:
        conditions.append(waiting.workflow == bindparam("workflow"))
    if form.project is not None:
        conditions.append(waiting.project == bindparam("project"))
    if form.statuses:
        conditions.append(waiting.status.in_(list(map(literal, form.statuses))))
    return select(func.sum(waiting.n)).where(*conditions)


@_kept
def whole_page(way: IndexScan, direction: DirectionForm) -> Statement:
    """A page of a way that is whole."""
    if len(way.stretches) == 1:
        page = select(*SUMMARY_COLUMNS).where(*way.stretches[0], *direction.conditions())
        return compile_statement(_bounded(page.order_by(*direction.order(runs.c))))
    merged = way.walk(SUMMARY_COLUMNS, direction)
    return compile_statement(_bounded(select(merged).order_by(*direction.order(merged.c))))


@_kept
def walked_page(form: FilterForm, way: IndexScan, direction: DirectionForm) -> Statement:
    """Those of a filter on a stretch of a way."""
    return compile_statement(_page(form, way.walk(SUMMARY_COLUMNS, direction), direction))


@_kept
def page_among(form: FilterForm, among: Among, direction: DirectionForm) -> Statement:
    """Those of a filter among few."""
    return compile_statement(_page(form, _few(among), direction))


@_kept
def end_of_walk(way: IndexScan, direction: DirectionForm) -> Statement:
    """The key of the last run of a stretch; nothing if the way ends there."""
    walked = way.walk([], direction)
    last = select(walked.c.created_at, walked.c.run).order_by(*direction.order(walked.c))
    return compile_statement(last.offset(bindparam("most", type_=Integer) - 1).limit(1))


@_kept
def sample_among(form: FilterForm, among: Among) -> Statement:
    """Of few runs: how many there are (`n`), match (`matching`), and have the tags (`tagged`)."""
    few = _few(among)
    return compile_statement(select(*_sampled(form, few)).select_from(few))


@_kept
def samples_of(form: FilterForm, ways: tuple[IndexScan, ...]) -> Statement:
    """The same of the newest runs of each way, and how far they reach, as in `reaches_of`."""
    walks = (way.walk(SUMMARY_COLUMNS, _NEWEST_FIRST) for way in ways)
    return _of_each(_NEWEST_FIRST, [(walk, _sampled(form, walk)) for walk in walks])


@_kept
def reaches_of(ways: tuple[IndexScan, ...], direction: DirectionForm) -> Statement:
    """By `number` of each way how many runs there are (`n`); the last began at `reached`."""
    walks = (way.walk([], direction) for way in ways)
    return _of_each(direction, [(walk, [func.count().label("n")]) for walk in walks])


def _of_each(
    direction: DirectionForm, walks: Sequence[tuple[Subquery, Sequence[ColumnElement[Any]]]]
) -> Statement:
    """These columns, and how far it reaches, of each walk."""
    reach = func.max if direction.is_newer else func.min
    each = [
        select(
            literal(number).label("number"), *columns, reach(walk.c.created_at).label("reached")
        ).select_from(walk)
        for number, (walk, columns) in enumerate(walks)
    ]
    return compile_statement(select(union_all(*each).subquery()))


@_kept
def all_of(form: FilterForm) -> Statement:
    """All runs, by whatever plan."""
    return compile_statement(select(runs.c.run).where(*form.conditions()))


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


def _sampled(form: FilterForm, sample: Subquery) -> list[ColumnElement[Any]]:
    matching: ColumnElement[bool] = and_(True, *form.conditions(sample.c))
    columns: list[ColumnElement[Any]] = [
        func.count().label("n"),
        func.count().filter(matching).label("matching"),
    ]
    if form.tags:
        tagged = sample.c.tags.contains(bindparam("tags", type_=JSONB))
        columns.append(func.count().filter(tagged).label("tagged"))
    return columns

"""Ways through the runs that a filter means: which index is walked, in the order of lists.

Invariant: every run that the filter means lies on each of its ways, so any one will do. They differ
in how much else lies there. The planner does not know which of two filters that depend on each
other matches less, and a wrong guess walks through a million runs; so the newest `PROBED` runs of
each way are looked at, and the way that they reach back furthest on is the one with the fewest.

A way is one stretch of an index, or several that are merged. Late starts are a stretch of their
own: all other runs start within an hour of their first event, so a start bounds the walk.
"""

from collections import namedtuple
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import product
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    SmallInteger,
    Subquery,
    Uuid,
    bindparam,
    cast,
    func,
    literal,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY

from .filters import RunFilter
from .tables import COSTLY_NANO_USD, LATE_AFTER, LONG_US, UNUSUAL_STATUSES, runs

PROBED: Final = 500

SUMMARY_COLUMNS: Final = [
    column
    for column in runs.c
    if column.name not in ("seen_at", "feed_seq", "aged_at")
    and (column.computed is None or column.name == "fingerprint")
]
"""What lists show, and all that they are filtered by."""
_SUMMARIES: Final = select(*SUMMARY_COLUMNS)

# SQLAlchemy's rows take ten times as long to take apart.
SummaryRow: Final = namedtuple(  # type: ignore[misc]  # of names that are known at run time
    "SummaryRow", [column.name for column in SUMMARY_COLUMNS]
)
"""A row of these columns."""

Key = tuple[datetime, UUID]
"""A run's place in a list: the time of its first event, and its key."""
Conditions = list[ColumnElement[bool]]


class Direction(NamedTuple):
    """Where a page goes on from: nothing for the first one, else towards older or newer runs."""

    key: Key | None = None
    is_newer: bool = False
    is_inclusive: bool = False

    def conditions(self, of: Any = runs.c) -> Conditions:
        """Only what lies beyond the key, or at it."""
        if self.key is None:
            return []
        place, key = tuple_(of.created_at, of.run), tuple_(*self.key)
        if self.is_newer:
            return [place >= key if self.is_inclusive else place > key]
        return [place <= key if self.is_inclusive else place < key]

    def order(self, of: Any) -> list[ColumnElement[Any]]:
        """The order of the walk, for a table that has the key's columns."""
        keys = [of.created_at, of.run]
        return [key.asc() if self.is_newer else key.desc() for key in keys]


NEWEST_FIRST: Final = Direction()


class Way(NamedTuple):
    """Stretches of one index; each is the conditions that it answers.

    `is_whole`: it has the filter's runs and no others.
    """

    stretches: list[Conditions]
    is_whole: bool = False

    def page(self, most: int, direction: Direction, offset: int) -> Select[Any]:
        """So many summaries of it, in order; for a way that is whole."""
        if len(self.stretches) == 1:
            page = _SUMMARIES.where(*self.stretches[0], *direction.conditions())
            ordered = page.order_by(*direction.order(runs.c))
        else:
            merged = self.walk(SUMMARY_COLUMNS, most + offset, direction)
            ordered = select(merged).order_by(*direction.order(merged.c))
        limited = ordered.limit(most)
        return limited.offset(offset) if offset else limited

    def walk(
        self, columns: Sequence[Any], most: int, direction: Direction = NEWEST_FIRST
    ) -> Subquery:
        """So many runs of it, in order, with these columns and the key's."""
        wanted = [*columns, *(c for c in (runs.c.created_at, runs.c.run) if c not in columns)]
        parts = [
            select(*wanted)
            .where(*stretch, *direction.conditions())
            .order_by(*direction.order(runs.c))
            .limit(most)
            for stretch in self.stretches
        ]
        if len(parts) == 1:
            return parts[0].subquery()
        merged = union_all(*(select(part.subquery()) for part in parts)).subquery()
        return select(merged).order_by(*direction.order(merged.c)).limit(most).subquery()


def runs_at(shards: Sequence[int] = (), keys: Sequence[UUID] = ()) -> FromClause:
    """The runs at these places: the parameters `shards` and `keys` of the statement."""

    def given(name: str, values: Sequence[Any], kind: Any) -> ColumnElement[Any]:
        return cast(bindparam(name, list(values), ARRAY(kind)), ARRAY(kind))

    places = (
        func.unnest(given("shards", shards, SmallInteger), given("keys", keys, Uuid))
        .table_valued("shard", "run", name="places")
        .render_derived()
    )
    return runs.join(places, (runs.c.shard == places.c.shard) & (runs.c.run == places.c.run))


def ways_of(wanted: RunFilter, first: datetime | None, end: datetime | None) -> list[Way]:
    """All ways to this filter's runs, none of which began before `first` or from `end` on."""
    bounds: Conditions = []
    if first is not None:
        bounds.append(runs.c.created_at >= first)
    if end is not None:
        bounds.append(runs.c.created_at < end)
    if wanted.started_before is not None:
        # Implied, since the first event of a run is never later than its start.
        bounds.append(runs.c.created_at < wanted.started_before)
    spans = [bounds]
    if wanted.started_after is not None:
        early = wanted.started_after - _without_overflow(wanted.started_after)
        spans = [
            [*bounds, runs.c.created_at >= early],
            [
                *bounds,
                runs.c.created_at < early,
                runs.c.late_started_at >= wanted.started_after,
            ],
        ]
    is_anytime = spans == [[]]
    choices = _choices(wanted) or [(RunFilter(), [[]])]
    return [
        Way(
            [[*choice, *span] for choice, span in product(stretches, spans)],
            is_whole=is_anytime and answered == wanted,
        )
        for answered, stretches in choices
    ]


def choose(connection: Connection, ways: list[Way], direction: Direction) -> Way:
    """The way on which the fewest runs lie from here on."""
    if len(ways) == 1:
        return ways[0]
    reach = func.max if direction.is_newer else func.min
    probes = []
    for number, way in enumerate(ways):
        walked = way.walk([], PROBED, direction)
        probes.append(
            select(
                literal(number).label("number"),
                func.count().label("n"),
                reach(walked.c.created_at).label("reached"),
            ).select_from(walked)
        )
    found = connection.execute(union_all(*probes)).all()

    def rank(probe: Any) -> tuple[bool, float]:
        if probe.n < PROBED:
            return False, probe.n
        reached = probe.reached.timestamp()
        return True, -reached if direction.is_newer else reached

    fewest: int = min(found, key=rank).number
    return ways[fewest]


def _choices(wanted: RunFilter) -> list[tuple[RunFilter, list[Conditions]]]:
    """Each part of the filter that an index answers, and its stretches there; the best first."""
    found: list[tuple[RunFilter, list[Conditions]]] = []

    def add(stretches: list[Conditions], **answered: Any) -> None:
        found.append((RunFilter(**answered), stretches))

    def add_equal(*names: str) -> None:
        for name in names:
            if (value := getattr(wanted, name)) is not None:
                add([[_EQUAL[name] == value]], **{name: value})

    add_equal("parent_run", "session", "fingerprint", "error_type", "user")
    if wanted.statuses and set(wanted.statuses) <= set(UNUSUAL_STATUSES):
        stretches: list[Conditions] = [[runs.c.unusual_status == s] for s in wanted.statuses]
        add(stretches, statuses=wanted.statuses)
    if (longest := wanted.min_duration_us or 0) >= LONG_US:
        add([[runs.c.long_duration_us >= longest]], min_duration_us=longest)
    if (highest := wanted.min_cost_nano_usd or 0) >= COSTLY_NANO_USD:
        add([[runs.c.high_cost_nano_usd >= highest]], min_cost_nano_usd=highest)
    add_equal("workflow", "project", "trigger")
    return found


_EQUAL: Final = {
    **{name: runs.c[name] for name in ("parent_run", "session", "fingerprint", "error_type")},
    **{name: runs.c[name] for name in ("user", "workflow", "project")},
    "trigger": runs.c.trigger_type,
}


def _without_overflow(at: datetime) -> timedelta:
    return min(LATE_AFTER, at - datetime.min.replace(tzinfo=at.tzinfo))

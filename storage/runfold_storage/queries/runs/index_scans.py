"""Ways through the runs that a filter means: which index is walked, in the order of lists.

Invariant: every run that the filter means lies on each of its ways, so any one will do. They differ
in how much else lies there.

A way is one stretch of an index, or several that are merged. Late starts are a stretch of their
own: all other runs start within an hour of their first event, so a start bounds the walk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import product
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Subquery,
    bindparam,
    select,
    union_all,
)

from runfold_storage.filters.run_filter import EQUAL, FilterForm
from runfold_storage.tables import COSTLY_NANO_USD, LATE_AFTER, LONG_US, UNUSUAL_STATUSES, runs
from runfold_storage.tables.columns import TIME

from .keyset import DirectionForm

Conditions = list[ColumnElement[bool]]
Stretches = list[Conditions]


@dataclass(frozen=True, slots=True)
class IndexScan:
    """Stretches of one index; each is the conditions that it answers.

    `is_whole`: it has the filter's runs and no others. `name` tells it from all others.
    """

    name: tuple[FilterForm, bool, bool, int]
    stretches: Stretches = field(compare=False)
    is_whole: bool = field(compare=False)

    def walk(self, columns: Sequence[Any], direction: DirectionForm) -> Subquery:
        """As many runs of it as the parameter `most` says, in order.

        With these columns and the key's.
        """
        wanted = [*columns, *(c for c in (runs.c.created_at, runs.c.run) if c not in columns)]
        most = bindparam("most", type_=Integer)
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


@lru_cache(500)
def index_scans_of(form: FilterForm, *, has_first: bool, has_end: bool) -> tuple[IndexScan, ...]:
    """All ways to the runs of filters of this form, the best first.

    The parameters `first` and `end` bound the times of their first events, where they are said to.
    Of a filter with `started_after`, `early` is what `early_of` makes of it.
    """
    bounds: Conditions = []
    if has_first:
        bounds.append(runs.c.created_at >= bindparam("first", type_=TIME))
    if has_end:
        bounds.append(runs.c.created_at < bindparam("end", type_=TIME))
    if form.started_before is not None:
        # Implied, since the first event of a run is never later than its start.
        bounds.append(runs.c.created_at < bindparam("started_before", type_=TIME))
    spans = [bounds]
    if form.started_after is not None:
        early = bindparam("early", type_=TIME)
        late = runs.c.indexed_late_start_at >= bindparam("started_after", type_=TIME)
        spans = [
            [*bounds, runs.c.created_at >= early],
            [*bounds, runs.c.created_at < early, late],
        ]
    is_anytime = spans == [[]]
    choices = _choices(form) or [(FilterForm(), [[]])]
    return tuple(
        IndexScan(
            (form, has_first, has_end, number),
            [[*choice, *span] for choice, span in product(stretches, spans)],
            is_whole=is_anytime and answered == form,
        )
        for number, (answered, stretches) in enumerate(choices)
    )


def covering_scan(form: FilterForm) -> IndexScan | None:
    """The only way to the runs of filters of this form, if no others lie there."""
    ways = index_scans_of(form, has_first=False, has_end=False)
    return ways[0] if len(ways) == 1 and ways[0].is_whole else None


def early_of(started_after: datetime) -> datetime:
    """No run that began before, and did not start late, started since."""
    first_of_all = datetime.min.replace(tzinfo=started_after.tzinfo)
    return started_after - min(LATE_AFTER, started_after - first_of_all)


def _choices(form: FilterForm) -> list[tuple[FilterForm, Stretches]]:
    """Each part of the filter that an index answers, and its stretches there; the best first."""
    found: list[tuple[FilterForm, Stretches]] = []

    def add(stretches: Stretches, **answered: Any) -> None:
        found.append((FilterForm(**answered), stretches))

    def add_equal(*names: str) -> None:
        for name in names:
            if (value := getattr(form, name)) is not None:
                add([[runs.c[EQUAL[name]] == bindparam(name)]], **{name: value})

    add_equal("parent_run", "session", "fingerprint", "error_type", "user")
    if form.statuses and set(form.statuses) <= set(UNUSUAL_STATUSES):
        stretches = [[runs.c.indexed_status == status] for status in form.statuses]
        add(stretches, statuses=form.statuses)
    if (longest := form.min_duration_us or 0) >= LONG_US:
        long = runs.c.indexed_duration_us >= bindparam("min_duration_us")
        add([[long]], min_duration_us=longest)
    if (highest := form.min_cost_nano_usd or 0) >= COSTLY_NANO_USD:
        costly = runs.c.indexed_cost_nano_usd >= bindparam("min_cost_nano_usd")
        add([[costly]], min_cost_nano_usd=highest)
    add_equal("workflow", "project", "trigger")
    return found

"""Filters as they are asked: their form, the ways to their runs, and the parameters of both.

The planner does not know which of two filters that depend on each other matches less, and a wrong
guess walks through a million runs; so some hundred of the newest runs of each way are looked at,
and the way that they reach back furthest on is the one with the fewest others.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from .directions import Direction
from .filters import FilterForm, RunFilter
from .list_statements import reaches_of
from .ways import Way, early_of, ways_of

PROBED: Final = 500


class Question(NamedTuple):
    """A filter, and how it is asked."""

    wanted: RunFilter
    form: FilterForm
    ways: tuple[Way, ...]
    parameters: Mapping[str, Any]


def make_question(wanted: RunFilter, first: datetime | None, end: datetime | None) -> Question:
    """None of the runs began before `first` or from `end` on."""
    form = wanted.form()
    parameters = wanted.parameters() | {"first": first, "end": end}
    if wanted.started_after is not None:
        parameters["early"] = early_of(wanted.started_after)
    ways = ways_of(form, has_first=first is not None, has_end=end is not None)
    return Question(wanted, form, ways, parameters)


def choose(connection: Connection, question: Question, direction: Direction) -> Way:
    """The way on which the fewest runs lie from here on."""
    ways = question.ways
    if len(ways) == 1:
        return ways[0]
    given = {**question.parameters, **direction.parameters(), "most": PROBED}
    looks = reaches_of(ways, direction.form()).run(connection, given)
    fewest: int = fewest_of(looks, direction, PROBED).number
    return ways[fewest]


def fewest_of(looks: Iterable[Any], direction: Direction, most: int) -> Any:
    """Of looks at `most` runs of each way, that at the way with the fewest; see `reaches_of`."""

    def rank(look: Any) -> tuple[bool, float]:
        if look.n < most:
            return False, look.n
        reached: float = look.reached.timestamp()
        return True, -reached if direction.is_newer else reached

    return min(looks, key=rank)

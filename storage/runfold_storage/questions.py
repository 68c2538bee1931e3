"""Filters as they are asked: their form, the ways to their runs, and the parameters of both.

The planner does not know which of two filters that depend on each other matches less, and a wrong
guess walks through a million runs; so the newest `PROBED` runs of each way are looked at, and the
way that they reach back furthest on is the one with the fewest others.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from .directions import Direction
from .filters import FilterForm, RunFilter
from .list_statements import reach_of
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
    probes = reach_of(ways, direction.form()).run(
        connection, {**question.parameters, **direction.parameters(), "most": PROBED}
    )

    def rank(probe: Any) -> tuple[bool, float]:
        if probe.n < PROBED:
            return False, probe.n
        reached = probe.reached.timestamp()
        return True, -reached if direction.is_newer else reached

    fewest: int = min(probes, key=rank).number
    return ways[fewest]

"""The search for the events that PostgreSQL refuses, so that only they become dead letters.

PostgreSQL refuses a batch as a whole and names no event. Each culprit is found by bisection: a
trial writes the events up to a point in a transaction that is rolled back.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from runfold_storage.projections.batch_writer import DATA_ERRORS
from runfold_storage.records.rows import Batch
from runfold_workers.fold.frame_decoder import EventLocation

Refused = Mapping[EventLocation, str]
"""Events to leave out as dead letters, each with the reason."""

_NOT_TRIED: Final = "not tried yet"


def commit_without_refused(
    locations: Sequence[EventLocation],
    commit: Callable[[Refused], Batch],
    is_refused: Callable[[Refused], bool],
) -> Batch:
    """Commit these events without those that PostgreSQL refuses; return the committed batch.

    `commit` raises one of `DATA_ERRORS` while events are left that PostgreSQL refuses.
    `is_refused` tries to write the events without committing them.
    """
    refused: dict[EventLocation, str] = {}
    while True:
        try:
            return commit(refused)
        except DATA_ERRORS as error:
            left = [location for location in locations if location not in refused]
            if not left:
                raise
            culprit = _first_refused(left, refused, is_refused)
            refused[culprit] = f"refused by PostgreSQL: {error}".strip()


def _first_refused(
    left: Sequence[EventLocation], refused: Refused, is_refused: Callable[[Refused], bool]
) -> EventLocation:
    """Return the first event that PostgreSQL refuses together with the events before it."""
    accepted, culprit = 0, len(left)
    while culprit - accepted > 1:
        middle = (accepted + culprit) // 2
        if is_refused({**refused, **dict.fromkeys(left[middle:], _NOT_TRIED)}):
            culprit = middle
        else:
            accepted = middle
    return left[culprit - 1]

"""Throttle maintenance that locks shards: short steps, with pauses in between.

Invariant: a batch waits for one step at most. The size of a step adapts to the duration of the last
ones, so that it locks its shard for about `HOLD_S` on any machine. After a step the work pauses for
as long as it ran, and for several times as long while events come in, so the fold keeps its share
of the machine.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import psycopg

from .positions import count_added_frames

HOLD_S: Final = 0.02
"""How long a step should lock its shard."""
LEAST: Final = 200
MOST: Final = 10_000
"""Limits of the rows or events in a step."""
IDLE_FACTOR: Final = 1
"""How long a pause is, compared with the work before it."""
BUSY_FACTOR: Final = 4
"""The same while events come in, or wait to be folded."""
LONGEST_REST_S: Final = 0.5
_LOOK_EVERY_S: Final = 1.0

Item = TypeVar("Item")


def portions(weighed: Iterable[tuple[Item, int]], most: Callable[[], int]) -> Iterator[list[Item]]:
    """Group items by weight, up to `most()` per group; a heavier item is a group of its own."""
    portion: list[Item] = []
    weight = 0
    for item, its_weight in weighed:
        if portion and weight + its_weight > most():
            yield portion
            portion, weight = [], 0
        portion.append(item)
        weight += its_weight
    if portion:
        yield portion


class ShardThrottle:
    """Throttles one piece of work; pauses, if it has any, end early once `stop` is set.

    A step has `least` to `most` rows or events, unless one run has more.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        stop: threading.Event,
        *,
        has_pauses: bool = True,
        least: int = LEAST,
        most: int = MOST,
    ) -> None:
        self._connection = connection
        self._has_pauses = has_pauses
        self._stop = stop
        self._least, self._most = least, most
        self._size = least
        self._worked_s = 0.0
        self._added = -1
        self._is_busy = True
        self._looked_at = 0.0

    def portions(self, weighed: Iterable[tuple[Item, int]]) -> Iterator[list[Item]]:
        """Group items for steps; each comes with its number of rows or events."""
        return portions(weighed, lambda: self._size)

    def steps(self, weighed: Iterable[tuple[Item, int]]) -> Iterator[list[Item]]:
        """Yield the items of a step each; the loop's body locks a shard, a pause follows."""
        for portion in self.portions(weighed):
            with self.holding():
                yield portion
            self.rest()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Time a step that locks a shard, and adapt the size of the next ones."""
        began = time.monotonic()
        with self.working():
            yield
        elapsed_s = time.monotonic() - began
        factor = min(max(HOLD_S / max(elapsed_s, 1e-6), 0.5), 1.5)
        self._size = min(max(round(self._size * factor), self._least), self._most)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Time work that locks no shard."""
        began = time.monotonic()
        yield
        self._worked_s += time.monotonic() - began

    def rest(self) -> None:
        """Pause after a step."""
        if not self._has_pauses:
            return
        now = time.monotonic()
        if now - self._looked_at > _LOOK_EVERY_S:
            added, pending = count_added_frames(self._connection)
            self._is_busy = pending > 0 or added != self._added
            self._added, self._looked_at = added, now
        factor = BUSY_FACTOR if self._is_busy else IDLE_FACTOR
        self._stop.wait(min(self._worked_s * factor, LONGEST_REST_S))
        self._worked_s = 0.0

"""The pace of work that takes shards from the fold: short steps, and rests in between.

Invariant: a batch waits for one step at most. A step is as large as the last ones were fast, so
that it holds its shard for some `HOLD_S`, whatever the machine, the runs and the statistics. After
a step the work rests for as long as it worked, and for longer while the fold lies behind; so the
fold has its share of the machine.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import psycopg

from .positions import count_waiting_frames

HOLD_S: Final = 0.02
"""How long a step should hold its shard."""
LEAST: Final = 200
MOST: Final = 10_000
"""Of rows or events that a step is about, unless one run has more."""
BEHIND_FACTOR: Final = 4
"""So many times as long are rests while the fold lies behind."""
LONGEST_REST_S: Final = 0.5
_LOOK_EVERY_S: Final = 1.0

Item = TypeVar("Item")


def portions(weighed: Iterable[tuple[Item, int]], most: Callable[[], int]) -> Iterator[list[Item]]:
    """Items that weigh so much together at most, or one alone; asked anew for each portion."""
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
    """The pace of one piece of work; rests are cut short once `stop` is set."""

    def __init__(self, connection: psycopg.Connection, stop: threading.Event) -> None:
        self._connection = connection
        self._stop = stop
        self._size = LEAST
        self._worked_s = 0.0
        self._is_behind = False
        self._looked_at = 0.0

    def portions(self, weighed: Iterable[tuple[Item, int]]) -> Iterator[list[Item]]:
        """What a step is about each time, from items and how many rows or events each is."""
        return portions(weighed, lambda: self._size)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """A step that holds a shard: it decides how large the next ones are."""
        began = time.monotonic()
        with self.working():
            yield
        elapsed_s = time.monotonic() - began
        factor = min(max(HOLD_S / max(elapsed_s, 1e-6), 0.5), 1.5)
        self._size = min(max(round(self._size * factor), LEAST), MOST)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work that nothing waits for, but for the machine."""
        began = time.monotonic()
        yield
        self._worked_s += time.monotonic() - began

    def rest(self) -> None:
        """After each step."""
        now = time.monotonic()
        if now - self._looked_at > _LOOK_EVERY_S:
            self._is_behind = count_waiting_frames(self._connection) > 0
            self._looked_at = now
        factor = BEHIND_FACTOR if self._is_behind else 1
        self._stop.wait(min(self._worked_s * factor, LONGEST_REST_S))
        self._worked_s = 0.0

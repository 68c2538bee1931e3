"""The doors of workers and recorders to the outside: each leads into the simulation instead.

A name that is patched here and gone there fails loudly, so that this list stays true.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol
from unittest.mock import patch

from runfold import buffer, dispatching, emitter, segments, shipping, spool
from runfold_workers import committing, ownership, pipelining, worker
from runfold_workers.committing import Committer

from .disk import crash_points
from .processes import Writer
from .recorders import Harbour, without_threads
from .storage import snapshot


class Recorded(Harbour, Protocol):
    """What recorders are given of the world."""

    def nap(self, seconds: float) -> None:
        """Time goes by."""


@contextmanager
def recorders_walled_in(world: Recorded, clock: Callable[[], float]) -> Iterator[None]:
    """Until the end, recorders know no thread, no clock, no disk and no chance but these."""
    time = SimpleNamespace(
        monotonic=clock, sleep=world.nap, time_ns=lambda: int(clock() * 1e6) * 1000
    )
    crash_point = crash_points(world)
    doors: list[tuple[Any, str, Any]] = [
        *((module, "time", time) for module in (buffer, dispatching, emitter, shipping)),
        *((module, "time", time) for module in (segments, spool)),
        *((module, "os", world.disk) for module in (segments, spool)),
        *((module, "crash_point", crash_point) for module in (dispatching, segments, shipping)),
        (shipping, "random", world.dice.rng),
        (emitter, "threading", without_threads()),
        (spool, "SEGMENT_BYTES", world.dice.rng.choice((1, 4000, 4000))),
    ]
    with patched(doors):
        yield


@contextmanager
def workers_walled_in(
    *, clock: Callable[[], float], writer: Callable[[], Writer], max_weight: int, small: int
) -> Iterator[None]:
    """Until the end, workers know no server, no thread and no clock but these.

    `max_weight` bounds their memory; batches below `small` events are written without a thread.
    """

    def take_leases(connection: Any, owner: str) -> list[int]:
        leases: list[int] = connection.take_leases(owner, int(ownership.TTL_S * 1e6))
        return leases

    doors: list[tuple[Any, str, Any]] = [
        (committing, "count_shards", lambda connection: connection.count_shards()),
        (committing, "load_positions", lambda connection, of: connection.load_positions(of)),
        (committing, "newest_runs", lambda connection, of: connection.newest_runs(of)),
        (committing, "load_for_fold", lambda connection, refs: connection.load_events(refs)),
        (committing, "load_tombstones", lambda connection, refs: connection.load_tombstones(refs)),
        (committing, "ensure_weeks", lambda connection, _: connection.ensure_weeks()),
        (committing, "write_batch", lambda connection, batch: connection.write_batch(batch)),
        (committing, "prepare", snapshot),
        (committing, "prepare_session", lambda connection: connection.prepare_session()),
        (pipelining, "prepare", snapshot),
        (pipelining, "SMALL", small),
        (pipelining, "ThreadPoolExecutor", lambda *_, **__: writer()),
        (worker, "take_leases", take_leases),
        (worker, "Committer", partial(Committer, max_memory_weight=max_weight)),
        (worker, "time", SimpleNamespace(monotonic=clock)),
    ]
    with patched(doors):
        yield


@contextmanager
def patched(doors: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """(module, name, what stands there instead)."""
    with ExitStack() as stack:
        for module, name, replacement in doors:
            stack.enter_context(patch.object(module, name, replacement))
        yield

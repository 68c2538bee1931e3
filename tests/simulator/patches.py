"""Replacements for all that workers and recorders call outside of themselves.

A name that is patched here and gone there fails loudly, so that this list stays true.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, Protocol
from unittest.mock import patch

from runfold import throttled_log
from runfold.delivery import buffer, dispatcher, emitter, process_hooks, stream_sender
from runfold.spool import drop_counter, segment, spool
from runfold_storage.checkpoints.streams import trim
from runfold_workers.consumer import committer, folded_batch, loop, pipeline
from runfold_workers.shards import monitor, ownership

from .fake_database import DatabaseContext, FakeConnection, snapshot, with_numbers_of
from .processes import FakeExecutor, Process
from .recorders import RecorderContext, make_thread_refusal
from .simulated_disk import make_crash_point


class RecorderPatchContext(RecorderContext, Protocol):
    """What recorders are given of the world."""

    def sleep(self, seconds: float) -> None:
        """Time goes by."""


@contextmanager
def patch_recorders(world: RecorderPatchContext, clock: Callable[[], float]) -> Iterator[None]:
    """Give recorders the threads, clock, disk and random numbers of the simulation."""
    time = SimpleNamespace(
        monotonic=clock, sleep=world.sleep, time_ns=lambda: int(clock() * 1e6) * 1000
    )
    crash_point = make_crash_point(world)
    patches: list[tuple[Any, str, Any]] = [
        *((module, "time", time) for module in (buffer, dispatcher, emitter, stream_sender)),
        *((module, "time", time) for module in (segment, throttled_log)),
        *((module, "os", world.disk) for module in (drop_counter, segment, spool)),
        *((module, "crash_point", crash_point) for module in (dispatcher, segment, stream_sender)),
        (stream_sender, "_random", world.faults.rng),
        (emitter, "native_threads", make_thread_refusal()),
        # The end of a run would flush within `emit`, whose order is known when it has returned.
        (process_hooks, "ends_abruptly", lambda: False),
        (spool, "SEGMENT_BYTES", world.faults.rng.choice((1, 4000, 4000))),
    ]
    with apply_patches(patches):
        yield


class WorkerPatchContext(DatabaseContext, Protocol):
    """What workers are given of the world."""

    direct_write_limit: int
    """Batches below so many events go at once, without a transaction around them."""

    @property
    def current_process(self) -> Process:
        """The worker that calls."""


@contextmanager
def patch_workers(world: WorkerPatchContext, clock: Callable[[], float]) -> Iterator[None]:
    """Give workers the servers, threads and clock of the simulation."""
    threads = SimpleNamespace(
        Condition=_ImmediateTimeout,
        Event=threading.Event,
        Lock=threading.Lock,
        Thread=_UnstartedThread,
    )
    patches: list[tuple[Any, str, Any]] = [
        (committer, "count_shards", lambda connection: connection.count_shards()),
        (committer, "load_positions", lambda connection, of: connection.load_positions(of)),
        (committer, "lock_positions", lambda connection, of: connection.lock_positions(of)),
        (
            committer,
            "load_external_changes",
            lambda connection, *of: connection.load_external_changes(*of),
        ),
        (committer, "newest_runs", lambda connection, of: connection.newest_runs(of)),
        (committer, "load_for_fold", lambda connection, refs: connection.load_events(refs)),
        (committer, "load_deleted", lambda connection, refs: connection.load_tombstones(refs)),
        (committer, "load_expired", lambda connection, refs: set()),
        (committer, "ensure_weeks", lambda connection, _: connection.ensure_weeks()),
        (committer, "write_batch", lambda connection, batch: connection.write_batch(batch)),
        (
            committer,
            "is_single_statement",
            lambda batch: len(batch.events) < world.direct_write_limit,
        ),
        (committer, "restore_single_statement", lambda connection: None),
        (committer, "prepare_writing", lambda connection: connection.prepare_writing()),
        (folded_batch, "encode_batch", lambda batch, _: snapshot(batch)),
        (folded_batch, "renumber", with_numbers_of),
        (pipeline, "ThreadPoolExecutor", lambda *_, **__: FakeExecutor(world.current_process)),
        (ownership, "connect", lambda *_, **__: FakeConnection(world, world.current_process)),
        (ownership, "renew_leases", lambda connection, owner, **_: connection.renew_leases(owner)),
        (ownership, "give_up", lambda connection, *what: connection.give_up(*what)),
        (ownership, "leave", lambda connection, owner: connection.leave(owner)),
        (ownership, "threading", threads),
        (ownership, "time", SimpleNamespace(monotonic=clock)),
        (monitor, "threading", threads),
        # A collection walks all objects of the test run, which takes most of a history's time.
        (loop, "gc", SimpleNamespace(collect=lambda: 0)),
        (loop, "time", SimpleNamespace(monotonic=clock, sleep=lambda _: None)),
        (loop, "load_positions", lambda connection, of: connection.load_positions(of)),
        (loop, "raise_incident", lambda connection, *_, **__: connection.raise_incident()),
        (loop, "recover_stream", _trim_only),
    ]
    with apply_patches(patches):
        yield


def _trim_only(client: Any, connection: FakeConnection, shard: int) -> bool:
    """As for a stream that has lost nothing."""
    trim(client, shard, connection.load_positions([shard])[shard].position)
    return False


class _UnstartedThread:
    """Its work is done by the simulation instead, at random moments."""

    def __init__(self, **_: object) -> None:
        """Start nothing."""

    def start(self) -> None:
        """Start nothing."""

    def join(self) -> None:
        """Return: there is nothing to wait for."""


class _ImmediateTimeout(threading.Condition):
    """No other thread exists that could notify this one, so a wait returns at once."""

    def wait(self, timeout: float | None = None) -> bool:
        return False


@contextmanager
def apply_patches(patches: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """(module, name, what stands there instead)."""
    with ExitStack() as stack:
        for module, name, replacement in patches:
            stack.enter_context(patch.object(module, name, replacement))
        yield

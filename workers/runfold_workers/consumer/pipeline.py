"""Two batches at a time: while PostgreSQL writes one, the next is folded.

Python folds about as fast as PostgreSQL writes, so taking turns would halve the throughput and
double the latency. The next batch is folded on the assumption that the one in flight is committed.
If it is not, both are folded again from the committed positions.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from runfold.crash_points import crash_point
from runfold_storage.errors import PositionMoved
from runfold_storage.projections.batch_encoding import encode_batch
from runfold_storage.records.rows import Batch
from runfold_workers.fold.frame_decoder import StreamEntry

from .committer import REFUSED, Committer, weeks_of


class Pipeline:
    """Commits frames in order, with at most one batch in flight; use it as a context manager.

    `on_commit` is called with each batch after its commit, in the thread that wrote it.
    """

    def __init__(self, committer: Committer, on_commit: Callable[[Batch], None]) -> None:
        self._committer = committer
        self._on_commit = on_commit
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._in_flight: tuple[Sequence[StreamEntry], Batch, Future[None]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._abandon()
        self._writer.shutdown()

    def submit(self, entries: Sequence[StreamEntry]) -> None:
        """Fold these frames, wait for the batch in flight, and start to write them.

        Raise the error of the batch in flight, except for data that became dead letters. While
        other processes change runs of a shard, its frames are committed first and by themselves:
        folded ahead, they would be refused, and all other frames with them.
        """
        contended = set(self._committer.contended)
        if locked := [entry for entry in entries if entry.shard in contended]:
            self.drain()
            self._report(self._committer.commit(locked))
            entries = [entry for entry in entries if entry.shard not in contended]
        if not entries:
            return
        try:
            folded = self._fold(entries)
            crash_point("after_fold")
            if self.drain():
                folded = self._fold(entries)
        except BaseException:
            self._abandon()
            raise
        if folded is None:
            self._report(self._committer.recommit(entries, is_moved=False))
        else:
            batch, write = folded
            self._in_flight = (entries, batch, self._writer.submit(write))

    @property
    def busy(self) -> bool:
        """Return whether a batch is being written."""
        return self._in_flight is not None and not self._in_flight[2].done()

    def drain(self) -> bool:
        """Wait for the batch in flight; return whether what was folded ahead is invalid."""
        if self._in_flight is None:
            return False
        entries, batch, writing = self._in_flight
        self._in_flight = None
        # Not `result()`: the traceback would refer to this frame, the frame to the future, and the
        # future to the error. Only cyclic collection, which is off, would free that.
        error = writing.exception()
        del writing
        if error is None:
            self._committer.written(batch)
            return False
        if isinstance(error, REFUSED):
            is_moved = isinstance(error, PositionMoved)
            del error
            self._report(self._committer.recommit(entries, is_moved=is_moved))
            return True
        self._committer.rewind()
        try:
            raise error
        finally:
            del error

    def _fold(self, entries: Sequence[StreamEntry]) -> tuple[Batch, Callable[[], None]] | None:
        """Return the batch and how to write it; None if it holds data that cannot be stored."""
        try:
            batch = self._committer.fold(entries)
            prepared, weeks = encode_batch(batch), weeks_of(batch)
        except REFUSED:
            return None
        batch.events.clear()  # they are in `prepared`

        def write() -> None:
            self._committer.write(prepared, weeks)
            self._on_commit(batch)

        return batch, write

    def _report(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self._on_commit(batch)

    def _abandon(self) -> None:
        """Wait for the batch in flight, whatever its result; drop what was folded ahead."""
        if self._in_flight is not None:
            self._in_flight[2].exception()
            self._in_flight = None
        self._committer.rewind()

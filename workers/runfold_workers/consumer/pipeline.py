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
from runfold_storage.records.rows import Batch
from runfold_workers.fold.frame_decoder import StreamEntry

from .committer import REFUSED, Committer
from .folded_batch import FoldedBatch


class Pipeline:
    """Commits frames in order, with at most one batch in flight; use it as a context manager.

    `on_commit` is called with each batch after its commit, in the thread that wrote it.
    """

    def __init__(self, committer: Committer, on_commit: Callable[[Batch], None]) -> None:
        self._committer = committer
        self._on_commit = on_commit
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._in_flight: tuple[Sequence[StreamEntry], FoldedBatch, Future[None]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._abandon()
        self._writer.shutdown()

    def submit(self, entries: Sequence[StreamEntry]) -> None:
        """Fold these frames, wait for the batch in flight, and start to write them.

        Raise the error of the batch in flight, except for data that became dead letters.
        """
        try:
            folded = self._fold(entries)
            crash_point("after_fold")
            if self.drain() or (folded is not None and not self._committer.catch_up(folded)):
                folded = self._fold(entries)
        except BaseException:
            self._abandon()
            raise
        if folded is None:
            self._report(self._committer.recommit(entries, is_moved=False))
        else:
            self._in_flight = (entries, folded, self._writer.submit(self._write, folded))

    @property
    def busy(self) -> bool:
        """Return whether a batch is being written."""
        return self._in_flight is not None and not self._in_flight[2].done()

    def drain(self) -> bool:
        """Wait for the batch in flight; return whether what was folded ahead is invalid."""
        if self._in_flight is None:
            return False
        entries, folded, writing = self._in_flight
        self._in_flight = None
        # Not `result()`: the traceback would refer to this frame, the frame to the future, and the
        # future to the error. Only cyclic collection, which is off, would free that.
        error = writing.exception()
        del writing
        if error is None:
            self._committer.written(folded)
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

    def _fold(self, entries: Sequence[StreamEntry]) -> FoldedBatch | None:
        """Return None if the batch holds data that cannot be stored."""
        try:
            folded = self._committer.fold(entries)
        except REFUSED:
            return None
        folded.batch.events.clear()  # they are encoded
        return folded

    def _write(self, folded: FoldedBatch) -> None:
        self._committer.write(folded)
        self._on_commit(folded.batch)

    def _report(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self._on_commit(batch)

    def _abandon(self) -> None:
        """Wait for the batch in flight, whatever its result; drop what was folded ahead."""
        if self._in_flight is not None:
            self._in_flight[2].exception()
            self._in_flight = None
        self._committer.rewind()

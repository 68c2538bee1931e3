"""Two batches at a time: while PostgreSQL works on one, the next is folded.

Python folds at about the pace at which PostgreSQL writes, so taking turns would halve both, and
have the events of a small batch wait for twice as long. The next batch is folded on the assumption
that the one on its way is committed; if it is not, both are folded once more, from the committed
positions, and for a while they do take turns.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self

from runfold.crash_points import crash_point
from runfold_storage.errors import PositionMoved
from runfold_storage.projections.batch_encoding import prepare
from runfold_storage.records.rows import Batch
from runfold_workers.fold.frame_decoder import StreamEntry

from .committer import REFUSED, Committer, weeks_of


class _Folded(NamedTuple):
    batch: Batch
    write: Callable[[], None]


class Pipeline:
    """Commits frames in order, with at most one batch on its way; use it as a context manager.

    `committed` is called with each batch after its commit, in the thread that wrote it.
    """

    def __init__(self, committer: Committer, committed: Callable[[Batch], None]) -> None:
        self._committer = committer
        self._committed = committed
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._on_its_way: tuple[Sequence[StreamEntry], Batch, Future[None]] | None = None

    def submit(self, entries: Sequence[StreamEntry]) -> None:
        """Fold these frames, wait until what was submitted before is committed, and write them.

        Raises what writing the batches before raised, but for data that could be left out. Where
        others change the same shards, one batch at a time: what is folded ahead would be refused.
        """
        if self._committer.is_contended:
            self._settle()
            self._tell(self._committer.commit(entries))
            return
        try:
            folded = self._fold(entries)
            crash_point("after_fold")
            if self._settle():
                folded = self._fold(entries)
        except BaseException:
            self._give_up()
            raise
        if folded is None:
            self._recommit(entries, is_moved=False)
            return
        self._on_its_way = (entries, folded.batch, self._writer.submit(folded.write))

    @property
    def busy(self) -> bool:
        """Whether a batch is on its way."""
        return self._on_its_way is not None and not self._on_its_way[2].done()

    def drain(self) -> None:
        """Wait until everything that was submitted is committed."""
        self._settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._give_up()
        self._writer.shutdown()

    def _fold(self, entries: Sequence[StreamEntry]) -> _Folded | None:
        """The batch and how to write it; None if there is something in it that cannot be stored."""
        try:
            batch = self._committer.fold(entries)
            prepared, weeks = prepare(batch), weeks_of(batch)
        except REFUSED:
            return None
        batch.events.clear()  # they are in `prepared`

        def write() -> None:
            self._committer.write(prepared, weeks)
            self._committed(batch)

        return _Folded(batch, write)

    def _recommit(self, entries: Sequence[StreamEntry], *, is_moved: bool) -> None:
        self._tell(self._committer.recommit(entries, is_moved=is_moved))

    def _tell(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self._committed(batch)

    def _settle(self) -> bool:
        """Whether what was folded ahead has to be folded again."""
        if self._on_its_way is None:
            return False
        entries, batch, writing = self._on_its_way
        self._on_its_way = None
        # Not `result()`: raised here, the error would lead to this frame, which has the future,
        # which has the error. Nothing but cyclic collection would free what all of them hold.
        error = writing.exception()
        del writing
        if error is None:
            self._committer.written(batch)
            return False
        if isinstance(error, REFUSED):
            is_moved = isinstance(error, PositionMoved)
            del error
            self._recommit(entries, is_moved=is_moved)
            return True
        self._committer.rewind()
        try:
            raise error
        finally:
            del error

    def _give_up(self) -> None:
        """Let the batch on its way come to its end, whichever; forget what was folded ahead."""
        if self._on_its_way is not None:
            self._on_its_way[2].exception()
            self._on_its_way = None
        self._committer.rewind()

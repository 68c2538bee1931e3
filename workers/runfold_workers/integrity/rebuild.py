"""The rebuild job: refolds every run and adds up the statistics again, beside the fold.

Two passes: runs by shard and key, then statistics by hour. Each chunk is compared without a lock
(`verify`); only what is wrong is compared again under the lock of its shard and corrected
(`correct`), in short steps (`ShardThrottle`).

After a crash, what was committed is right, and the job's progress says where to resume. Chunks
after the last saved progress are compared once more, which changes nothing.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final
from uuid import UUID

import msgspec
import psycopg
from msgspec import Struct

from runfold.crash_points import crash_point
from runfold_storage.checkpoints.positions import load_positions
from runfold_storage.checkpoints.throttle import ShardThrottle
from runfold_storage.jobs import JobInterrupted, finish_job, resume_job, save_progress
from runfold_storage.ledger.run_keys import BEFORE_ALL
from runfold_storage.projections.batch_writer import prepare_session
from runfold_storage.records.rollup import RollupKey
from runfold_storage.rollups.daily_check import correct_day
from runfold_storage.rollups.recompute import Span

from .correct import correct_rollups, correct_runs, correct_span
from .diff import Mismatch
from .selection import Selection, estimate_runs
from .verify import (
    RunMismatch,
    make_spans,
    spans_of_run,
    verify_days,
    verify_rollups,
    verify_runs,
)

KIND: Final = "rebuild"


class Progress(Struct):
    """The progress of a rebuild, stored in `jobs`."""

    phase: str = "runs"
    after: dict[str, str | None] = {}
    """By shard the last key that was compared, in hexadecimal; null when the shard is done."""
    hour_us: int | None = None
    """Statistics before this hour are compared."""
    touched: list[Span] = []
    """Other statistics in which corrected runs count, if not all runs are selected."""
    looked_at: int = 0
    of: int | None = None
    """The estimated number of selected runs."""
    runs: int = 0
    rollups: int = 0
    unreadable: int = 0


def rebuild(
    connection: psycopg.Connection,
    job_id: UUID,
    stop: threading.Event,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Do or resume a job of this kind; raise `JobInterrupted` or `JobLocked`.

    The connection is in autocommit mode, for this job only.
    """
    prepare_session(connection)
    with resume_job(connection, job_id, KIND, Progress) as (job, progress):

        def save() -> None:
            save_progress(connection, job_id, progress)
            crash_point("after_progress")
            on_progress(progress)
            if stop.is_set():
                raise JobInterrupted

        selection = msgspec.convert(job.arguments, Selection)
        if progress.of is None:
            progress.of = estimate_runs(connection, selection)
        _Rebuild(connection, selection, progress, save, stop).run()
        result = {"runs": progress.runs, "rollups": progress.rollups, "of": progress.looked_at}
        finish_job(connection, job_id, result | {"unreadable": progress.unreadable})
    return progress


class _Rebuild:
    def __init__(
        self,
        connection: psycopg.Connection,
        selection: Selection,
        progress: Progress,
        save: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        self._connection = connection
        self._selection = selection
        self._progress = progress
        self._save = save
        self._pace = ShardThrottle(connection, stop)

    def run(self) -> None:
        if self._progress.phase == "runs":
            self._runs()
            if self._selection.run is not None:
                self._touch(spans_of_run(self._connection, self._selection))
            self._progress.phase = "statistics"
            self._save()
        self._statistics()

    def _runs(self) -> None:
        """Compare and correct runs; the shards take turns."""
        after = self._progress.after
        for shard in load_positions(self._connection):
            after.setdefault(str(shard), BEFORE_ALL.hex())
        while pending := [int(shard) for shard, key in after.items() if key is not None]:
            for shard in pending:
                key = after[str(shard)]
                assert key is not None
                chunk = verify_runs(self._connection, shard, self._selection, bytes.fromhex(key))
                self._correct(shard, chunk.wrong)
                after[str(shard)] = None if chunk.last is None else chunk.last.hex()
                self._progress.looked_at += chunk.looked_at
                self._save()

    def _correct(self, shard: int, wrong: Sequence[RunMismatch]) -> None:
        self._progress.unreadable += sum(not run.is_repairable for run in wrong)
        for keys in self._pace.portions(repairable(wrong)):
            with self._pace.holding():
                corrected = correct_runs(self._connection, shard, keys)
            self._pace.rest()
            self._progress.runs += corrected.runs
            if not self._selection.is_everything:
                self._touch(corrected.spans)

    def _touch(self, spans: Iterable[Span]) -> None:
        known = set(self._progress.touched)
        self._progress.touched += [span for span in spans if span not in known]

    def _statistics(self) -> None:
        while self._progress.touched:
            span = self._progress.touched[-1]
            assert span.shard is not None
            self._progress.rollups += len(correct_span(self._connection, span.shard, span))
            self._progress.touched.pop()
            self._save()
        if self._selection.run is not None:  # `touched` had all its statistics
            return
        for span in make_spans(self._connection, self._selection):
            done = self._progress.hour_us
            if done is not None and span.first_us <= done:
                if span.end_us <= done:
                    continue
                span = span._replace(first_us=done)  # noqa: PLW2901
            found = verify_rollups(self._connection, span)
            self._progress.rollups += len(self._replace(found))
            self._progress.hour_us = span.end_us
            self._save()
        for day in verify_days(self._connection, self._selection):
            correct_day(self._connection, day)
            self._progress.rollups += 1
            self._save()

    def _replace(self, found: Sequence[tuple[RollupKey, Mismatch]]) -> list[RollupKey]:
        by_shard: dict[int, list[RollupKey]] = defaultdict(list)
        for key, _ in found:
            by_shard[key.shard].append(key)
        return [
            key
            for shard, keys in by_shard.items()
            for key in correct_rollups(self._connection, shard, keys)
        ]


def repairable(wrong: Sequence[RunMismatch]) -> list[tuple[bytes, int]]:
    """Return the keys of runs that can be corrected, and how many events each has."""
    return [(run.key, run.events) for run in wrong if run.is_repairable]

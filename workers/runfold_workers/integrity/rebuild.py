"""The rebuild job: refolds every run and adds up the statistics again, beside the fold.

Two passes: runs by shard and key, then statistics by hour. Each chunk is compared without a lock;
only what is wrong is compared again under the lock of its shard and corrected.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import msgspec
import psycopg
from msgspec import Struct

from runfold_storage.checkpoints.positions import load_positions
from runfold_storage.checkpoints.throttle import ShardThrottle
from runfold_storage.jobs import finish_job, resume_job
from runfold_storage.ledger.run_keys import BEFORE_ALL
from runfold_storage.projections.batch_writer import prepare_session
from runfold_storage.rollups.recompute import Span, correct_day, spans_of

from .correct import correct_runs, correct_span
from .selection import Selection, estimate_runs
from .verify import (
    CHUNK_RUNS,
    SPAN_RUNS,
    RunMismatch,
    make_spans,
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
    *,
    chunk_runs: int = CHUNK_RUNS,
    span_runs: int = SPAN_RUNS,
) -> Progress:
    """Do or resume a job on a connection of its own; raise `JobInterrupted` or `JobLocked`.

    Progress is saved after each `chunk_runs` runs, and after statistics of some `span_runs`.
    """
    prepare_session(connection)
    job_steps = resume_job(connection, job_id, KIND, Progress, stop, on_progress)
    with job_steps as (job, progress, save):
        selection = msgspec.convert(job.arguments, Selection)
        if progress.of is None:
            progress.of = estimate_runs(connection, selection)
        pace = ShardThrottle(connection, stop)
        _Rebuild(connection, selection, progress, save, pace, chunk_runs, span_runs).run()
        result = {"runs": progress.runs, "rollups": progress.rollups, "of": progress.looked_at}
        finish_job(connection, job_id, result | {"unreadable": progress.unreadable})
    return progress


@dataclass(slots=True)
class _Rebuild:
    connection: psycopg.Connection
    selection: Selection
    progress: Progress
    save: Callable[[], None]
    pace: ShardThrottle
    chunk_runs: int
    span_runs: int

    def run(self) -> None:
        if self.progress.phase == "runs":
            self._runs()
            if self.selection.run is not None:
                self._touch(make_spans(self.connection, self.selection))
            self.progress.phase = "statistics"
            self.save()
        self._statistics()

    def _runs(self) -> None:
        """Compare and correct runs; the shards take turns."""
        after = self.progress.after
        for shard in load_positions(self.connection):
            after.setdefault(str(shard), BEFORE_ALL.hex())
        while pending := [int(shard) for shard, key in after.items() if key is not None]:
            for shard in pending:
                key = after[str(shard)]
                assert key is not None
                last = bytes.fromhex(key)
                chunk = verify_runs(self.connection, shard, self.selection, last, self.chunk_runs)
                self._correct(shard, chunk.wrong)
                after[str(shard)] = None if chunk.last is None else chunk.last.hex()
                self.progress.looked_at += chunk.looked_at
                self.save()

    def _correct(self, shard: int, wrong: Sequence[RunMismatch]) -> None:
        self.progress.unreadable += sum(not run.is_repairable for run in wrong)
        for keys in self.pace.steps(repairable(wrong)):
            corrected = correct_runs(self.connection, shard, keys)
            self.progress.runs += corrected.runs
            if not self.selection.is_everything:
                self._touch(corrected.spans)

    def _touch(self, spans: Iterable[Span]) -> None:
        known = set(self.progress.touched)
        self.progress.touched += [span for span in spans if span not in known]

    def _statistics(self) -> None:
        while self.progress.touched:
            span = self.progress.touched[-1]
            self.progress.rollups += len(correct_span(self.connection, span))
            self.progress.touched.pop()
            self.save()
        if self.selection.run is not None:  # `touched` had all its statistics
            return
        for span in make_spans(self.connection, self.selection, self.span_runs):
            done = self.progress.hour_us
            if done is not None and span.first_us <= done:
                if span.end_us <= done:
                    continue
                span = span._replace(first_us=done)  # noqa: PLW2901
            wrong = spans_of(key for key, _ in verify_rollups(self.connection, span))
            self.progress.rollups += sum(len(correct_span(self.connection, s)) for s in wrong)
            self.progress.hour_us = span.end_us
            self.save()
        for day in verify_days(self.connection, self.selection):
            correct_day(self.connection, day)
            self.progress.rollups += 1
            self.save()


def repairable(wrong: Sequence[RunMismatch]) -> list[tuple[bytes, int]]:
    """Return the keys of runs that can be corrected, and how many events each has."""
    return [(run.key, run.events) for run in wrong if run.is_repairable]

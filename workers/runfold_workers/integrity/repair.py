"""Finds everything that is wrong without writing, and corrects exactly that."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import psycopg

from runfold.protocol.codec import to_rfc3339
from runfold_storage.checkpoints.positions import load_positions
from runfold_storage.checkpoints.throttle import ShardThrottle
from runfold_storage.jobs import JobInterrupted
from runfold_storage.ledger.run_keys import BEFORE_ALL
from runfold_storage.projections.batch_writer import prepare_session
from runfold_storage.records.rollup import RollupKey
from runfold_storage.rollups.recompute import Day, Span, correct_day, day_of, spans_of

from .correct import correct_runs, correct_span
from .diff import Mismatch
from .rebuild import repairable
from .selection import Selection
from .verify import RunMismatch, make_spans, verify_days, verify_rollups, verify_shard


@dataclass(slots=True)
class Findings:
    """What `examine` found, as `repair` needs it."""

    looked_at: int = 0
    differences: int = 0
    runs: list[RunMismatch] = field(default_factory=list)
    rollups: list[RollupKey] = field(default_factory=list)
    days: list[Day] = field(default_factory=list)
    hours_left: int | None = None
    """Hours of statistics that are left; None while runs are compared."""

    @property
    def doing(self) -> str:
        """Return the name of the current phase."""
        return "comparing" if self.hours_left is None else "statistics"


def examine(
    connection: psycopg.Connection,
    selection: Selection,
    found: Callable[[Mismatch], None],
    on_progress: Callable[[Findings], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> Findings:
    """Compare everything that is selected; raise `JobInterrupted` once `stop` is set."""
    findings = Findings()

    def report(differences: Iterable[Mismatch]) -> None:
        for difference in differences:
            findings.differences += 1
            found(difference)
        on_progress(findings)
        if stop is not None and stop.is_set():
            raise JobInterrupted

    for shard in load_positions(connection):
        for chunk in verify_shard(connection, shard, selection, BEFORE_ALL):
            findings.looked_at += chunk.looked_at
            findings.runs += chunk.wrong
            report(chunk.differences)
    spans = make_spans(connection, selection)
    for done, span in enumerate(spans):
        findings.hours_left = len(spans) - done
        wrong = verify_rollups(connection, span, findings.runs)
        findings.rollups += [key for key, _ in wrong]
        report(difference for _, difference in wrong)
    # Correcting an hour adds up its day again.
    with_hours = {(key.shard, day_of(key.hour_us)) for key in findings.rollups if not key.node}
    findings.days = [day for day in verify_days(connection, selection) if day not in with_hours]
    report(
        Mismatch("rollups_daily", "differs", shard, {"day": to_rfc3339(start_us)})
        for shard, start_us in findings.days
    )
    return findings


def repair(connection: psycopg.Connection, findings: Findings, stop: threading.Event) -> int:
    """Correct what is still wrong, on an autocommit connection; return how many differences."""
    prepare_session(connection)
    corrected = 0
    pace = ShardThrottle(connection, stop)
    by_shard: dict[int, list[RunMismatch]] = defaultdict(list)
    for run in findings.runs:
        by_shard[run.shard].append(run)
    spans: set[Span] = set(spans_of(findings.rollups))
    for shard, runs in by_shard.items():
        for keys in pace.steps(repairable(runs)):
            done = correct_runs(connection, shard, keys)
            corrected += len(done.differences)
            # Deltas went with the rows; rollups that did not match the old rows are wrong now.
            spans.update(done.spans)
            if stop.is_set():
                raise JobInterrupted
    listed = set(findings.rollups)
    for span in sorted(spans):
        corrected += sum(key in listed for key in correct_span(connection, span))
        if stop.is_set():
            raise JobInterrupted
    for day in findings.days:
        correct_day(connection, day)
        corrected += 1
    return corrected

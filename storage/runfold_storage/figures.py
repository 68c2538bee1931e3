"""What is known of a set of runs, or of attempts at nodes, in the words of the contract."""

from datetime import datetime
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from .summaries import UsageTotals
from .tallies import DurationFigures, Tally


class Figures(Struct, frozen=True, kw_only=True):
    """What is known of a set of runs, or of attempts at nodes."""

    total: int
    completed: int
    failed: int
    cancelled: int
    running: int
    queued: int | UnsetType = UNSET
    lost: int | UnsetType = UNSET
    pending: int | UnsetType = UNSET
    skipped: int | UnsetType = UNSET
    success_rate: float | None
    duration_ms: DurationFigures
    usage: UsageTotals


class BucketFigures(Figures, frozen=True, kw_only=True):
    """Those whose first event lies in the bucket that begins at `start`."""

    start: datetime


class GroupFigures(Figures, frozen=True, kw_only=True):
    """Those of one group; the field that the answer is grouped by names it."""

    workflow: str | UnsetType | None = UNSET
    """Null: of runs without a beginning, and so is the project."""
    project: str | UnsetType | None = UNSET
    node: str | UnsetType = UNSET
    status: str | UnsetType = UNSET
    error_type: str | UnsetType = UNSET
    buckets: list[BucketFigures] | UnsetType = UNSET


def figures_of(tally: Tally, *, is_nodes: bool = False) -> dict[str, Any]:
    """The fields of `Figures`; runs and nodes have different statuses."""
    counts = tally.counts
    further = ("pending", "skipped") if is_nodes else ("queued", "lost")
    ended = sum(counts.get(status, 0) for status in ("completed", "failed", "cancelled", "lost"))
    return {
        "total": sum(counts.values()),
        **{
            status: counts.get(status, 0)
            for status in ("completed", "failed", "cancelled", "running", *further)
        },
        "success_rate": counts.get("completed", 0) / ended if ended else None,
        "duration_ms": tally.durations(),
        "usage": tally.usage(),
    }

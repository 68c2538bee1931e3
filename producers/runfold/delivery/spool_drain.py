"""Inspect a spool folder, or drain it: send what dead processes left."""

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from runfold.protocol.streams import connect
from runfold.serialization.redaction import Redactor
from runfold.settings import Settings
from runfold.spool.drop_counter import read_counters
from runfold.spool.segment import SET_ASIDE, inspect_segment
from runfold.spool.spool import is_segment, redis_digest, segment_bytes

from .buffer import Buffer
from .dispatcher import Dispatcher


@dataclass
class SpoolStats:
    """Waiting events: `in_use` of them in segments of living processes; `dropped`: not reported to
    Redis yet; `since`: when the oldest segment was created."""

    events: int = 0
    in_use: int = 0
    segments: int = 0
    since: datetime | None = None
    dropped: int = 0


class SpoolState(NamedTuple):
    """A folder: events for this Redis and for others, damaged files, size in bytes, and whether it
    is full, so that no process can create another segment."""

    folder: Path
    this_redis: SpoolStats
    other_redis: SpoolStats
    damaged: list[Path]
    size: int
    is_full: bool


class DrainResult(NamedTuple):
    """Numbers of events that were sent, could not be read, and were reported as dropped."""

    sent: int
    unreadable: int
    dropped: int


def read_spool(folder: Path, redis_url: str | None, max_bytes: int) -> SpoolState:
    """Inspect a folder; a missing one is empty. Without a URL all events count as `other_redis`."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        names = []
    target = None if redis_url is None else redis_digest(redis_url)
    found = {True: SpoolStats(), False: SpoolStats()}  # by whether they are for this Redis
    damaged = [folder / name for name in names if name.endswith(SET_ASIDE)]
    size = 0
    for name in filter(is_segment, names):
        try:
            segment = inspect_segment(folder / name)
        except OSError:  # its process has just sent and deleted it
            continue
        size += segment.size
        if not segment.in_use and not segment.is_whole:
            damaged.append(folder / name)
        if segment.target is not None:
            stats = found[segment.target == target]
            stats.events += segment.events
            stats.in_use += segment.events if segment.in_use else 0
            stats.segments += 1
            created = datetime.fromtimestamp(int(name.partition("-")[0]) / 1e9, UTC)
            stats.since = min(stats.since or created, created)
    for counter_target, number in read_counters(folder):
        found[counter_target == target].dropped += number
    is_full = size + segment_bytes(max_bytes) > max_bytes
    return SpoolState(folder, found[True], found[False], damaged, size, is_full)


def drain(settings: Settings, timeout_s: float) -> DrainResult:
    """Send what dead processes left for this Redis, and report what they dropped, until nothing is
    left, time is up, or Redis cannot be reached, which is logged."""
    buffer = Buffer(1, 1024 * 1024, lambda: None, "spool")
    dispatcher = Dispatcher(settings, Redactor(), lambda: connect(settings.redis_url), buffer)
    try:
        dispatcher.drain(time.monotonic() + timeout_s)
    finally:
        dispatcher.close()
    return DrainResult(
        dispatcher.adopted_sent, dispatcher.adopted_unreadable, dispatcher.adopted_drops
    )

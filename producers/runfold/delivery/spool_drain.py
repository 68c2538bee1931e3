"""What waits in the folder of a spool, and sending it by hand.

Looking changes nothing. Draining does what any process does that records to the same Redis: it
sends what dead processes have left, and leaves alone what living ones hold.
"""

import logging
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from runfold.protocol.streams import connect
from runfold.serialization.redaction import Redactor
from runfold.settings import Settings
from runfold.spool.drop_counter import look_at_counters
from runfold.spool.segment import SET_ASIDE, inspect_segment
from runfold.spool.spool import is_segment, segment_bytes, target_of

from .buffer import Buffer
from .dispatcher import Dispatcher

_log = logging.getLogger("runfold")


class SpoolStats(NamedTuple):
    """Events that wait for one Redis, or for others; `since`: when the oldest segment was begun."""

    events: int = 0
    in_use: int = 0
    """Of these events, those in segments of processes that live."""
    segments: int = 0
    since: datetime | None = None
    dropped: int = 0
    """Events that runners dropped, and of which Redis does not know yet."""


class SpoolState(NamedTuple):
    """A folder: what is for this Redis, what is not, what was set aside, and its size."""

    folder: Path
    ours: SpoolStats
    others: SpoolStats
    damaged: list[Path]
    size: int
    is_full: bool
    """No process can begin another segment."""


class DrainResult(NamedTuple):
    """Events that were sent, those that could not be read, and the drops that were reported."""

    sent: int
    unreadable: int
    dropped: int


def read_spool(folder: Path, redis_url: str | None, max_bytes: int) -> SpoolState:
    """What waits in a folder; one that is not there is empty. Without a URL all is of others."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        names = []
    target = None if redis_url is None else target_of(redis_url)
    ours, others = SpoolStats(), SpoolStats()
    damaged = [folder / name for name in names if name.endswith(SET_ASIDE)]
    size = 0
    for name in filter(is_segment, names):
        try:
            waiting = inspect_segment(folder / name)
            size += (folder / name).stat().st_size
        except OSError:  # sent just now
            continue
        if not waiting.in_use and not waiting.is_whole:
            damaged.append(folder / name)
        if waiting.target is None:
            continue
        if waiting.target == target:
            ours = _add(ours, name, waiting.events, in_use=waiting.in_use)
        else:
            others = _add(others, name, waiting.events, in_use=waiting.in_use)
    for counted in look_at_counters(folder):
        if counted.target == target:
            ours = ours._replace(dropped=ours.dropped + counted.number)
        else:
            others = others._replace(dropped=others.dropped + counted.number)
    is_full = size + segment_bytes(max_bytes) > max_bytes
    return SpoolState(folder, ours, others, damaged, size, is_full)


def drain(settings: Settings, timeout_s: float) -> DrainResult:
    """Send what dead processes left for this Redis, and report what they dropped; returns when
    nothing is left or time is up.

    Raises what connecting and agreeing on the shards raise.
    """
    buffer = Buffer(1, 1024 * 1024, lambda: None, "spool")
    dispatcher = Dispatcher(settings, Redactor(), lambda: connect(settings.redis_url), buffer)
    try:
        dispatcher.drain(time.monotonic() + timeout_s)
    finally:
        dispatcher.close()
    return DrainResult(dispatcher.resent, dispatcher.unreadable, dispatcher.reported)


def _add(spooled: SpoolStats, name: str, events: int, *, in_use: bool) -> SpoolStats:
    began = datetime.fromtimestamp(int(name.partition("-")[0]) / 1e9, UTC)
    return spooled._replace(
        events=spooled.events + events,
        in_use=spooled.in_use + (events if in_use else 0),
        segments=spooled.segments + 1,
        since=min(spooled.since or began, began),
    )

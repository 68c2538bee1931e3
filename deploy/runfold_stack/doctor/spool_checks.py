"""Checks of this machine's spool: waiting and dropped events, size, damaged segments."""

from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Final

from runfold.delivery.spool_drain import SpoolState, SpoolStats, read_spool

from .findings import Finding, fail, ok, warn

_LISTED: Final = 3


def check_spool(folder: Path, redis_url: str | None, max_bytes: int) -> Iterator[Finding]:
    """Check the spool of runners on this machine that use the same folder."""
    try:
        state = read_spool(folder, redis_url, max_bytes)
    except OSError as error:
        yield fail(
            "spool",
            f"{folder} cannot be read: {error.strerror or error}",
            "runners cannot spool there either: correct its permissions, or RUNFOLD_SPOOL_DIR",
        )
        return
    other = "another Redis" if redis_url else "a Redis"
    if state.this_redis.segments:
        yield warn(
            "spool", _describe(state.this_redis, "this Redis", folder), _remedy(state.this_redis)
        )
    if state.other_redis.segments:
        yield warn(
            "spool",
            _describe(state.other_redis, other, folder),
            "set RUNFOLD_REDIS_URL to the value that the runners used, then: runfold drain",
        )
    for spooled, target in ((state.this_redis, "this Redis"), (state.other_redis, other)):
        if spooled.dropped:
            yield warn(
                "spool",
                f"{spooled.dropped:,} events for {target} were dropped by runners on this machine,"
                " and no incident counts them yet",
                "make Redis accept events, then: runfold drain",
            )
    if state.is_full:
        yield fail(
            "spool",
            f"at its cap: {_mib(state.size)} of {_mib(max_bytes)} are in use, so runners will drop"
            " events",
            "make Redis accept events again, or raise RUNFOLD_SPOOL_BYTES",
        )
    if state.damaged:
        yield _damaged(state)
    waiting = (
        state.this_redis.segments,
        state.other_redis.segments,
        state.this_redis.dropped,
        state.other_redis.dropped,
    )
    if not (any(waiting) or state.damaged):
        yield ok("spool", f"no events wait in {folder}")


def _describe(spooled: SpoolStats, target: str, folder: Path) -> str:
    since = "" if spooled.since is None else f" since {spooled.since.astimezone(UTC):%F %T} UTC"
    in_use = f", {spooled.in_use:,} of them from live runners" if spooled.in_use else ""
    return f"{spooled.events:,} events wait in {folder} for {target}{since}{in_use}"


def _remedy(spooled: SpoolStats) -> str:
    if spooled.in_use == spooled.events:
        return "make Redis accept events; the live runners then send them"
    return "make Redis accept events, then: runfold drain"


def _damaged(state: SpoolState) -> Finding:
    names = ", ".join(path.name for path in state.damaged[:_LISTED])
    return warn(
        "spool",
        f"{len(state.damaged)} damaged segments in {state.folder}: {names}",
        "`runfold drain` sends the readable events and renames the segments to `.corrupt`; check"
        " the disk, and delete those files unless the rest matters",
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"

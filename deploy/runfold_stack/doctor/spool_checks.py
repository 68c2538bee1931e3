"""Checks of this machine's spool: waiting and dropped events, size, damaged segments."""

from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Final

from runfold.delivery.spool_drain import read_spool

from . import Finding, fail, ok, warn

_LISTED: Final = 3


def check_spool(folder: Path, redis_url: str | None, max_bytes: int) -> Iterator[Finding]:
    try:
        state = read_spool(folder, redis_url, max_bytes)
    except OSError as error:
        found = f"{folder} cannot be read: {error.strerror or error}"
        remedy = "runners cannot spool there either: correct its permissions, or RUNFOLD_SPOOL_DIR"
        yield fail("spool", found, remedy)
        return
    is_empty = not state.damaged
    drain = "make Redis accept events, then: runfold drain"
    targets = (
        (state.this_redis, "this Redis", drain),
        (
            state.other_redis,
            "another Redis" if redis_url else "a Redis",
            "set RUNFOLD_REDIS_URL to the value that the runners used, then: runfold drain",
        ),
    )
    for spooled, target, remedy in targets:
        if spooled.segments:
            since = f" since {spooled.since.astimezone(UTC):%F %T} UTC" if spooled.since else ""
            live = f", {spooled.in_use:,} of them from live runners" if spooled.in_use else ""
            found = f"{spooled.events:,} events wait in {folder} for {target}{since}{live}"
            is_live = remedy == drain and spooled.in_use == spooled.events
            wait = "make Redis accept events; the live runners then send them"
            yield warn("spool", found, wait if is_live else remedy)
        if spooled.dropped:
            found = f"{spooled.dropped:,} events for {target} were dropped by runners here"
            yield warn("spool", f"{found}, and no incident counts them yet", drain)
        is_empty = is_empty and not (spooled.segments or spooled.dropped)
    if state.is_full:
        size, most = (f"{size / 2**20:,.0f} MiB" for size in (state.size, max_bytes))
        found = f"at its cap: {size} of {most} are in use, so runners will drop events"
        remedy = "make Redis accept events again, or raise RUNFOLD_SPOOL_BYTES"
        yield fail("spool", found, remedy)
    if state.damaged:
        names = ", ".join(path.name for path in state.damaged[:_LISTED])
        found = f"{len(state.damaged)} damaged segments in {state.folder}: {names}"
        remedy = "check the disk; `runfold drain` sends what is readable, and keeps .corrupt files"
        yield warn("spool", found, remedy)
    if is_empty:
        yield ok("spool", f"no events wait in {folder}")

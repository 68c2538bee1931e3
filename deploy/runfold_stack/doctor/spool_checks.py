"""Do events wait on this machine's disk, for which Redis, and can they be read?"""

from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Final

from runfold.delivery.spool_drain import SpoolState, SpoolStats, read_spool

from .findings import Finding, fail, ok, warn

_LISTED: Final = 3


def check_spool(folder: Path, redis_url: str | None, max_bytes: int) -> Iterator[Finding]:
    """Only what runners of this machine and user have spooled is known here."""
    try:
        state = read_spool(folder, redis_url, max_bytes)
    except OSError as error:
        yield fail(
            "spool",
            f"{folder} cannot be looked into: {error.strerror or error}",
            "runners cannot spool there either: correct its rights, or RUNFOLD_SPOOL_DIR",
        )
        return
    other = "another Redis" if redis_url else "some Redis"
    if state.this_redis.segments:
        yield warn(
            "spool", _told(state.this_redis, "this Redis", folder), _remedy(state.this_redis)
        )
    if state.other_redis.segments:
        yield warn(
            "spool",
            _told(state.other_redis, other, folder),
            "set RUNFOLD_REDIS_URL as it was for the runners, then: runfold drain",
        )
    for spooled, target in ((state.this_redis, "this Redis"), (state.other_redis, other)):
        if spooled.dropped:
            yield warn(
                "spool",
                f"{spooled.dropped:,} events for {target} were dropped by runners of this machine,"
                " and no incident counts them yet",
                "see that Redis takes events, then: runfold drain",
            )
    if state.is_full:
        yield fail(
            "spool",
            f"at its cap: {_mib(state.size)} of {_mib(max_bytes)} are taken, and runners will drop"
            " events",
            "make Redis take events again, or raise RUNFOLD_SPOOL_BYTES",
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
        yield ok("spool", f"nothing waits in {folder}")


def _told(spooled: SpoolStats, target: str, folder: Path) -> str:
    since = "" if spooled.since is None else f" since {spooled.since.astimezone(UTC):%F %T} UTC"
    in_use = f", {spooled.in_use:,} of them of runners that live" if spooled.in_use else ""
    return f"{spooled.events:,} events wait in {folder} for {target}{since}{in_use}"


def _remedy(spooled: SpoolStats) -> str:
    if spooled.in_use == spooled.events:
        return "see that Redis takes events; those runners send them then"
    return "see that Redis takes events, then: runfold drain"


def _damaged(state: SpoolState) -> Finding:
    names = ", ".join(path.name for path in state.damaged[:_LISTED])
    return warn(
        "spool",
        f"{len(state.damaged)} damaged segments in {state.folder}: {names}",
        "`runfold drain` sends what can be read and sets them aside as `.corrupt`; look at the"
        " disk, keep those if the rest may matter, else delete them",
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"

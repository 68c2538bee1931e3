"""Checks of the streams: number of shards, lag, loss, and workers for every shard."""

from collections.abc import Iterator, Mapping
from typing import Final

import psycopg

from runfold_storage.checkpoints.leases import count_leases
from runfold_storage.checkpoints.streams import Lag

from .findings import Finding, fail, ok, warn

LAG_FRAMES: Final = 10_000
"""A longer lag is a warning."""
_LISTED: Final = 5


def check_shards(agreed: int | None, wanted: int | None, positions: int) -> Finding:
    """Check that Redis, the database and the setting have the same number of shards."""
    if agreed is None:
        if positions:
            return fail(
                "shards",
                f"Redis has no number of shards, the database has {positions}",
                f"Redis was flushed or replaced: set RUNFOLD_SHARDS={positions} everywhere",
            )
        return warn("shards", "not chosen yet", "the first runner or worker chooses the number")
    if wanted is not None and wanted != agreed:
        return fail(
            "shards",
            f"RUNFOLD_SHARDS is {wanted}, the deployment has {agreed}",
            f"set RUNFOLD_SHARDS={agreed} or leave it unset",
        )
    if positions not in (0, agreed):
        return fail(
            "shards",
            f"Redis has {agreed}, the database {positions}",
            "this Redis and this database belong to different deployments: check both URLs",
        )
    return ok("shards", str(agreed))


def check_lags(lags: Mapping[int, Lag], max_lag_s: float) -> Iterator[Finding]:
    """Check how much waits, for how long, and losses that no incident counts yet."""
    replaced = [shard for shard, lag in lags.items() if lag.is_replaced]
    lost = {shard: lag.lost for shard, lag in lags.items() if lag.lost}
    if replaced:
        yield fail(
            "streams",
            f"{_shards(replaced)}: the stream is not the one that was folded, so Redis was flushed "
            "or restored from a copy",
            "start a worker, which folds the present frames; then check the incidents",
        )
    if lost:
        yield fail(
            "streams",
            f"{_shards(list(lost))}: {sum(lost.values()):,} frames were trimmed or deleted unread",
            "stop the program that trims; only workers may. A running worker reports the loss as"
            " incidents",
        )
    lag = sum(each.frames for each in lags.values())
    age_s = max((each.age_s for each in lags.values()), default=0.0)
    since = f", the oldest for {age_s:,.1f} s" if lag else ""
    if age_s > max_lag_s:
        worst = max(lags, key=lambda shard: lags[shard].age_s)
        yield fail(
            "lag",
            f"{lag:,} frames wait to be folded{since}, on shard {worst}",
            "check below whether workers fold, and check their logs for delays; if they fold,"
            " start more workers on more cores. RUNFOLD_MAX_LAG_S is the limit",
        )
    elif lag > LAG_FRAMES:
        worst = max(lags, key=lambda shard: lags[shard].frames)
        yield warn(
            "lag",
            f"{lag:,} frames wait to be folded, most of them on shard {worst}{since}",
            "start more workers on more cores; see the workers below",
        )
    else:
        yield ok("lag", f"{lag:,} frames wait to be folded{since}")


def check_leases(connection: psycopg.Connection, shards: int) -> Finding:
    """Check that a worker folds every shard."""
    owned = list(count_leases(connection).items())
    number = sum(count for _, count in owned)
    if not number:
        return fail("workers", "no worker runs", "start one: `runfold up`, or `runfold worker`")
    owners = ", ".join(f"{owner} ({count})" for owner, count in owned[:_LISTED])
    if number < shards:
        return warn(
            "workers",
            f"{number} of {shards} shards are folded, by {owners}",
            "run it again in a few seconds; a worker may have just ended",
        )
    return ok("workers", f"{len(owned)} workers fold all {shards} shards: {owners}")


def _shards(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_LISTED]))
    more = f" and {len(numbers) - _LISTED} more" if len(numbers) > _LISTED else ""
    return f"shard {shown}{more}"

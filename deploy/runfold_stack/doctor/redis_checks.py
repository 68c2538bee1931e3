"""Checks of Redis and its streams: persistence, memory, shards, lag, loss, workers."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import psycopg
import redis

from runfold_storage.checkpoints.leases import count_leases
from runfold_storage.checkpoints.streams import Lag

from . import Finding, fail, ok, warn

OLDEST: Final = {"redis": 7, "valkey": 8}
_FULL: Final = 0.8
LAG_FRAMES: Final = 10_000
"""A longer lag is a warning."""
_LISTED: Final = 5


def check_server(client: redis.Redis) -> Iterator[Finding]:
    """Check the version and the settings that keep data on disk and in memory."""
    info: dict[str, Any] = client.info()
    name = str(info.get("server_name") or "redis")
    version = str(info.get(f"{name}_version") or info.get("redis_version", "unknown"))
    major = int(version.partition(".")[0]) if version[:1].isdigit() else 0
    if major and major < OLDEST.get(name, 0):
        yield warn("redis", f"{name} {version}", f"upgrade to {OLDEST[name]} or later")
    else:
        yield ok("redis", f"{name} {version} answers")
    yield _persistence(client, info)
    policy = str(info.get("maxmemory_policy", "unknown"))
    if policy in ("noeviction", "unknown"):
        yield ok("redis eviction", f"maxmemory-policy is {policy}")
    else:
        found = f"maxmemory-policy is {policy}: events can be evicted before they are folded"
        yield fail("redis eviction", found, "set `maxmemory-policy noeviction`")
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0) or 0)
    limit = f" of {most / 2**20:,.0f} MiB" if most else ", no limit"
    shown = f"{used / 2**20:,.0f} MiB used{limit}"
    if most and used >= _FULL * most:
        remedy = "check the lag of the streams: if workers fold, raise `maxmemory`"
        yield warn("redis memory", shown, remedy)
    else:
        yield ok("redis memory", shown)


def _persistence(client: redis.Redis, info: dict[str, Any]) -> Finding:
    check = "redis persistence"
    if info.get("loading"):
        return warn(check, "Redis is loading its data", "wait until it has finished")
    if info.get("aof_last_write_status", "ok") != "ok":
        found = "the last write to the append-only file failed"
        return fail(check, found, "check its log; often the disk is full")
    if not info.get("aof_enabled"):
        found = "no append-only file: a crash loses accepted events"
        return warn(check, found, "set `appendonly yes` and `appendfsync everysec`")
    try:
        fsync = client.config_get("appendfsync").get("appendfsync", b"unknown")
    except redis.ResponseError:  # managed services refuse CONFIG
        fsync = b"unknown"
    how = fsync.decode() if isinstance(fsync, bytes) else str(fsync)
    if how == "no":
        found = "append-only file, synced only when the kernel decides"
        return warn(check, found, "set `appendfsync everysec`")
    return ok(check, f"append-only file, fsync {how}")


def check_shards(agreed: int | None, wanted: int | None, positions: int) -> Finding:
    if agreed is None and positions:
        found = f"Redis has no number of shards, the database has {positions}"
        remedy = f"Redis was flushed or replaced: set RUNFOLD_SHARDS={positions} everywhere"
        return fail("shards", found, remedy)
    if agreed is None:
        return warn("shards", "not chosen yet", "the first runner or worker chooses the number")
    if wanted not in (None, agreed):
        found = f"RUNFOLD_SHARDS is {wanted}, the deployment has {agreed}"
        return fail("shards", found, f"set RUNFOLD_SHARDS={agreed} or leave it unset")
    if positions not in (0, agreed):
        found = f"Redis has {agreed}, the database {positions}"
        remedy = "this Redis and this database belong to different deployments: check both URLs"
        return fail("shards", found, remedy)
    return ok("shards", str(agreed))


def check_lags(lags: Mapping[int, Lag], max_lag_s: float) -> Iterator[Finding]:
    """Check how much waits, for how long, and losses that no incident counts yet."""
    replaced = [shard for shard, lag in lags.items() if lag.is_replaced]
    lost = {shard: lag.lost for shard, lag in lags.items() if lag.lost}
    if replaced:
        problem = "the stream is not the one that was folded: Redis was flushed or restored"
        remedy = "start a worker, which folds the present frames; then check the incidents"
        yield fail("streams", f"{_shards(replaced)}: {problem}", remedy)
    if lost:
        problem = f"{sum(lost.values()):,} frames were trimmed or deleted unread"
        remedy = "stop the program that trims; a running worker reports the loss as incidents"
        yield fail("streams", f"{_shards(list(lost))}: {problem}", remedy)
    lag = sum(each.frames for each in lags.values())
    age_s = max((each.age_s for each in lags.values()), default=0.0)
    since = f", the oldest for {age_s:,.1f} s" if lag else ""
    found = f"{lag:,} frames wait to be folded"
    if age_s > max_lag_s:
        worst = max(lags, key=lambda shard: lags[shard].age_s)
        yield fail(
            "lag",
            f"{found}{since}, on shard {worst}",
            "check below whether workers fold, and check their logs for delays; if they fold,"
            " start more workers on more cores. RUNFOLD_MAX_LAG_S is the limit",
        )
    elif lag > LAG_FRAMES:
        worst = max(lags, key=lambda shard: lags[shard].frames)
        remedy = "start more workers on more cores; see the workers below"
        yield warn("lag", f"{found}, most of them on shard {worst}{since}", remedy)
    else:
        yield ok("lag", found + since)


def check_leases(connection: psycopg.Connection, shards: int) -> Finding:
    owned = list(count_leases(connection).items())
    number = sum(count for _, count in owned)
    if not number:
        return fail("workers", "no worker runs", "start one: `runfold up`, or `runfold worker`")
    owners = ", ".join(f"{owner} ({count})" for owner, count in owned[:_LISTED])
    if number < shards:
        found = f"{number} of {shards} shards are folded, by {owners}"
        return warn("workers", found, "run it again in a few seconds; a worker may have just ended")
    return ok("workers", f"{len(owned)} workers fold all {shards} shards: {owners}")


def _shards(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_LISTED]))
    more = f" and {len(numbers) - _LISTED} more" if len(numbers) > _LISTED else ""
    return f"shard {shown}{more}"

"""Checks of Redis: version, persistence, eviction, memory."""

from collections.abc import Iterator
from typing import Any, Final

import redis

from . import Finding, fail, ok, warn

OLDEST: Final = {"redis": 7, "valkey": 8}
_FULL: Final = 0.8


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

"""Checks of Redis: version, persistence, eviction, memory."""

from collections.abc import Iterator
from typing import Any, Final

import redis

from .findings import Finding, fail, ok, warn

OLDEST: Final = {"redis": 7, "valkey": 8}
_FULL: Final = 0.8


def check_server(client: redis.Redis) -> Iterator[Finding]:
    """Check the version and the settings that keep data on disk and in memory."""
    info: dict[str, Any] = client.info()
    yield _version(info)
    yield _persistence(client, info)
    yield _eviction(info)
    yield _memory(info)


def _version(info: dict[str, Any]) -> Finding:
    name = str(info.get("server_name") or "redis")
    version = str(info.get(f"{name}_version") or info.get("redis_version", "unknown"))
    major = int(version.partition(".")[0]) if version[:1].isdigit() else 0
    if major and major < OLDEST.get(name, 0):
        return warn("redis", f"{name} {version}", f"upgrade to {OLDEST[name]} or later")
    return ok("redis", f"{name} {version} answers")


def _persistence(client: redis.Redis, info: dict[str, Any]) -> Finding:
    if info.get("loading"):
        return warn("redis persistence", "Redis is loading its data", "wait until it has finished")
    if info.get("aof_last_write_status", "ok") != "ok":
        return fail(
            "redis persistence",
            "the last write to the append-only file failed",
            "check its log; often the disk is full",
        )
    if not info.get("aof_enabled"):
        return warn(
            "redis persistence",
            "no append-only file: a crash loses accepted events",
            "set `appendonly yes` and `appendfsync everysec`",
        )
    try:
        fsync = client.config_get("appendfsync").get("appendfsync", b"unknown")
    except redis.ResponseError:  # managed services refuse CONFIG
        fsync = b"unknown"
    how = fsync.decode() if isinstance(fsync, bytes) else str(fsync)
    if how == "no":
        return warn(
            "redis persistence",
            "append-only file, synced only when the kernel decides",
            "set `appendfsync everysec`",
        )
    return ok("redis persistence", f"append-only file, fsync {how}")


def _eviction(info: dict[str, Any]) -> Finding:
    policy = str(info.get("maxmemory_policy", "unknown"))
    if policy not in ("noeviction", "unknown"):
        return fail(
            "redis eviction",
            f"maxmemory-policy is {policy}: events can be evicted before they are folded",
            "set `maxmemory-policy noeviction`",
        )
    return ok("redis eviction", f"maxmemory-policy is {policy}")


def _memory(info: dict[str, Any]) -> Finding:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0) or 0)
    shown = f"{used / 2**20:,.0f} MiB used"
    if not most:
        return ok("redis memory", f"{shown}, no limit")
    shown += f" of {most / 2**20:,.0f} MiB"
    if used >= _FULL * most:
        remedy = "check the lag of the streams: if workers fold, raise `maxmemory`"
        return warn("redis memory", shown, remedy)
    return ok("redis memory", shown)

"""Where events live in Redis: keys, hashing, connections. Nothing else knows.

A deployment's number of shards is agreed through Redis: the first process to ask writes it,
every other one reads it, so that producers and workers cannot hash a run to different streams.
"""

import zlib
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from runfold.errors import ShardsDiffer

DEFAULT_SHARDS: Final = 8
MAX_SHARDS: Final = 1024
DEFAULT_REDIS_URL: Final = "redis://127.0.0.1:6379/0"

_SHARDS_KEY: Final = "runfold:shards"
_DROPPED_KEY: Final = "runfold:dropped"


def stream_key(shard: int) -> str:
    """The stream of a shard; the braces are a Redis Cluster hash tag."""
    return f"runfold:{{{shard}}}:events"


def mark_key(shard: int) -> str:
    """What workers leave beside the stream that they fold: a Redis without it is another one."""
    return f"runfold:{{{shard}}}:mark"


def shard_of(run_id: str, shards: int) -> int:
    """CRC-32 (zlib's) of the UTF-8 run id, modulo the number of shards."""
    return zlib.crc32(run_id.encode()) % shards


def changes_channel(client: redis.Redis | redis.asyncio.Redis) -> str:
    """Where workers announce, after each commit, what has changed: one message for all shards.

    With the number of the database, which divides keys but not channels: another deployment may
    have another one.
    """
    return f"runfold:changes:{client.connection_pool.connection_kwargs.get('db') or 0}"


def connect(url: str, *, timeout_s: float = 5.0) -> redis.Redis:
    """A client that never sends a command twice: a retried XADD would append twice."""
    client: redis.Redis = redis.Redis.from_url(
        url,
        decode_responses=False,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        health_check_interval=0,
    )
    return client


def agreed_shards(client: redis.Redis) -> int | None:
    """The deployment's number of shards, or None as long as no process has asked for it."""
    agreed = client.get(_SHARDS_KEY)
    return None if agreed is None else int(agreed)


def agree_on_shards(client: redis.Redis, wanted: int | None = None) -> int:
    """The deployment's number of shards; `wanted`, when it is the first to ask.

    Raises `ShardsDiffer` when a number was asked for and another one is in force.
    """
    if wanted is not None and not 1 <= wanted <= MAX_SHARDS:
        raise ShardsDiffer(f"RUNFOLD_SHARDS is {wanted}: choose 1 to {MAX_SHARDS}")
    proposed = wanted or DEFAULT_SHARDS
    client.set(_SHARDS_KEY, proposed, nx=True)
    agreed = agreed_shards(client) or proposed
    if wanted is not None and agreed != wanted:
        raise ShardsDiffer(
            f"RUNFOLD_SHARDS is {wanted}, but this deployment runs with {agreed} shards "
            f"(key {_SHARDS_KEY} in Redis): set RUNFOLD_SHARDS={agreed} or leave it unset"
        )
    return agreed


def add_dropped(client: redis.Redis, events: int) -> None:
    """Tell the deployment that so many events were given up; a worker raises the incident."""
    client.incrby(_DROPPED_KEY, events)


def dropped_events(client: redis.Redis) -> int:
    """Events that were given up and that no worker has counted yet."""
    return int(client.get(_DROPPED_KEY) or 0)

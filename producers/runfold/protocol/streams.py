"""Redis keys, the hash of a run to its shard, and connections: defined nowhere else.

The number of shards is agreed on through Redis: the first process of a deployment writes it and all
others read it, so that producers and workers hash a run to the same stream.
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
    """Return the key of a shard's stream; the braces are a Redis Cluster hash tag."""
    return f"runfold:{{{shard}}}:events"


def mark_key(shard: int) -> str:
    """Return the key that workers write beside a stream: without it, the Redis is another one."""
    return f"runfold:{{{shard}}}:mark"


def shard_of(run_id: str, shards: int) -> int:
    """Return the shard of a run: zlib's CRC-32 of its UTF-8 id, modulo the number of shards."""
    return zlib.crc32(run_id.encode()) % shards


def changes_channel(client: redis.Redis | redis.asyncio.Redis) -> str:
    """Return the channel on which workers publish, after each commit, what has changed.

    Its name includes the number of the database, as databases separate keys but not channels.
    """
    return f"runfold:changes:{client.connection_pool.connection_kwargs.get('db') or 0}"


def connect(url: str, *, timeout_s: float = 5.0) -> redis.Redis:
    """Return a client that never retries a command: a retried XADD would append twice."""
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
    """Return the deployment's number of shards; None if no process has set it yet."""
    agreed = client.get(_SHARDS_KEY)
    return None if agreed is None else int(agreed)


def agree_on_shards(client: redis.Redis, wanted: int | None = None) -> int:
    """Return the deployment's number of shards, after setting it if this process is the first.

    Raises `ShardsDiffer` if another number than `wanted` is in force.
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
    """Add to the count of dropped events, from which a worker makes an incident."""
    client.incrby(_DROPPED_KEY, events)


def dropped_events(client: redis.Redis) -> int:
    """Return the number of dropped events that no worker has counted yet."""
    return int(client.get(_DROPPED_KEY) or 0)

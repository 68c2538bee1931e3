"""Do positions and streams agree, and does somebody fold every shard?"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import psycopg
import redis

from runfold.streams import stream_key
from runfold_stack.diagnosis.findings import Finding, fail, ok, warn
from runfold_stack.folded import order
from runfold_storage.positions import Position

LAG_FRAMES: Final = 10_000
"""From here on it is worth a look."""
_LISTED: Final = 5


class Stream(NamedTuple):
    """What Redis knows of one shard's stream; one that does not exist is empty."""

    exists: bool
    length: int = 0
    added: int = 0
    last: str = "0-0"


def read_streams(client: redis.Redis, shards: int) -> dict[int, Stream]:
    """All streams of the deployment."""
    streams = {}
    for shard in range(shards):
        key = stream_key(shard)
        if client.exists(key):
            info: dict[str, Any] = client.xinfo_stream(key)
            last = info["last-generated-id"].decode()
            streams[shard] = Stream(True, info["length"], info["entries-added"], last)
        else:
            streams[shard] = Stream(False)
    return streams


def check_shards(agreed: int | None, wanted: int | None, positions: int) -> Finding:
    """Producers, workers and the database have to mean the same number."""
    if agreed is None:
        if positions:
            return fail(
                "shards",
                f"Redis knows of no number of shards, the database has {positions}",
                f"Redis was flushed or replaced: set RUNFOLD_SHARDS={positions} everywhere",
            )
        return warn("shards", "not agreed on yet", "the first runner or worker does it")
    if wanted is not None and wanted != agreed:
        return fail(
            "shards",
            f"RUNFOLD_SHARDS is {wanted}, the deployment has {agreed}",
            f"set RUNFOLD_SHARDS={agreed} or leave it unset",
        )
    if positions not in (0, agreed):
        return fail(
            "shards",
            f"Redis says {agreed}, the database {positions}",
            "this Redis and this database belong to different deployments: check both URLs",
        )
    return ok("shards", str(agreed))


def check_streams(
    streams: Mapping[int, Stream], positions: Mapping[int, Position]
) -> Iterator[Finding]:
    """The lag; frames that were trimmed unread; streams that lie behind their position."""
    lags: dict[int, int] = {}
    behind: list[int] = []
    trimmed: dict[int, int] = {}
    for shard, stream in streams.items():
        position = positions.get(shard, Position("0-0", 0, 0, 0))
        if order(stream.last) < order(position.position):
            behind.append(shard)
            continue
        lags[shard] = max(0, stream.added - position.consumed)
        if stream.added - stream.length > position.consumed:
            trimmed[shard] = stream.added - stream.length - position.consumed
    if behind:
        yield fail(
            "streams",
            f"{_shards(behind)}: the stream ends before the position, so Redis was flushed or "
            "restored from an older copy",
            "keep what is there; new frames may be skipped until the streams pass the positions",
        )
    if trimmed:
        yield fail(
            "streams",
            f"{_shards(list(trimmed))}: {sum(trimmed.values()):,} frames were trimmed unread",
            "stop whatever trims or deletes the streams; only workers may",
        )
    lag = sum(lags.values())
    if lag > LAG_FRAMES:
        worst = max(lags, key=lambda shard: lags[shard])
        yield warn(
            "lag",
            f"{lag:,} frames wait to be folded, most of them on shard {worst}",
            "start more workers, on more cores; see the leases below",
        )
    else:
        yield ok("lag", f"{lag:,} frames wait to be folded")


def check_leases(connection: psycopg.Connection, shards: int) -> Finding:
    """Who folds which shard."""
    owned = connection.execute(
        """
        SELECT owner, count(*)
        FROM leases
        WHERE expires_at > now()
        GROUP BY owner
        ORDER BY owner
        LIMIT 1000
        """
    ).fetchall()
    number = sum(count for _, count in owned)
    if not number:
        return fail("workers", "nobody folds", "start one: `runfold up`, or `runfold worker`")
    owners = ", ".join(f"{owner} ({count})" for owner, count in owned[:_LISTED])
    if number < shards:
        return warn(
            "workers",
            f"{number} of {shards} shards are folded, by {owners}",
            "look again in a few seconds; a worker may have just ended",
        )
    return ok("workers", f"{len(owned)} fold all {shards} shards: {owners}")


def _shards(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_LISTED]))
    more = f" and {len(numbers) - _LISTED} more" if len(numbers) > _LISTED else ""
    return f"shard {shown}{more}"

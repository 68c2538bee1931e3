"""Redis as the project uses it: streams with their ids, and clients whose calls may fail."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import redis

from runfold.protocol.streams import stream_key

from .processes import Process, ProcessContext

Fields = Mapping[bytes, bytes]
StreamId = tuple[int, int]


class RedisContext(ProcessContext, Protocol):
    """What Redis sees of the world."""

    redis: "FakeRedis"


def to_stream_id(text: str) -> StreamId:
    """`5-1` as numbers."""
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds), int(sequence)


def to_text(stream_id: StreamId) -> str:
    """The other way round."""
    return f"{stream_id[0]}-{stream_id[1]}"


class FakeRedis:
    """One stream a shard, whose ids only grow, and everything that was ever added to it."""

    def __init__(self, shards: int) -> None:
        self.keys = {stream_key(shard): shard for shard in range(shards)}
        self.entries: list[list[tuple[StreamId, Fields]]] = [[] for _ in range(shards)]
        self.history: list[list[tuple[StreamId, Fields]]] = [[] for _ in range(shards)]
        self.values: dict[str, bytes] = {}
        self.now_ms = 0
        self.is_away = False
        self.full: set[int] = set()
        """Shards that take nothing in."""

    def last(self, shard: int) -> StreamId:
        """The last id that was given out."""
        return self.history[shard][-1][0] if self.history[shard] else (0, 0)

    def add(self, key: str, fields: Fields) -> bytes:
        """XADD with an id from the server's clock, or the next one when that does not go on."""
        shard = self.keys[key]
        last = self.last(shard)
        entry_id = (self.now_ms, 0) if self.now_ms > last[0] else (last[0], last[1] + 1)
        for where in (self.entries, self.history):
            where[shard].append((entry_id, fields))
        return to_text(entry_id).encode()

    def read(self, positions: Mapping[bytes, str], count: int) -> list[tuple[bytes, Any]]:
        """XREAD: at most `count` frames of each stream behind its position, fields in a row."""
        answer = []
        for key, position in positions.items():
            after = to_stream_id(position)
            entries = self.entries[self.keys[key.decode()]]
            found = [
                (to_text(each).encode(), [part for pair in fields.items() for part in pair])
                for each, fields in entries
                if each > after
            ]
            if found:
                answer.append((key, found[:count]))
        return answer

    def trim(self, key: str, minid: str) -> int:
        """XTRIM MINID."""
        shard, least = self.keys[key], to_stream_id(minid)
        before = len(self.entries[shard])
        self.entries[shard] = [entry for entry in self.entries[shard] if entry[0] >= least]
        return before - len(self.entries[shard])


class FakeRedisClient:
    """A process's connection to Redis, in redis-py's words."""

    def __init__(self, world: RedisContext, process: Process) -> None:
        self._world = world
        self._process = process
        self.connection_pool = self

    def xread(
        self, streams: Mapping[bytes, str], count: int, block: int | None
    ) -> list[tuple[bytes, Any]]:
        self._call()
        faults = self._world.faults
        return self._world.redis.read(streams, min(count, faults.rng.choice((1, 1, 2, 5, 1000))))

    def xtrim(self, key: str, *, minid: str, approximate: bool) -> None:
        assert not approximate
        self._call()
        self._world.redis.trim(key, minid)

    def incrby(self, name: str, amount: int) -> None:
        self._call()
        now = int(self._world.redis.values.get(name, b"0"))
        self._world.redis.values[name] = str(now + amount).encode()

    def set_response_callback(self, command: str, callback: object) -> None:
        """Answers come as they are anyway."""

    def set(self, name: str, value: object, *, nx: bool) -> None:
        assert nx
        self._call()
        self._world.redis.values.setdefault(name, str(value).encode())

    def get(self, name: str) -> bytes | None:
        self._call()
        return self._world.redis.values.get(name)

    def pipeline(self, *, transaction: bool) -> "FakePipeline":
        assert not transaction
        return FakePipeline(self._world, self._process)

    def disconnect(self) -> None:
        """Nothing is kept open."""

    def close(self) -> None:
        """Nor to be closed."""

    def _call(self) -> None:
        self._process.switch()
        if self._world.redis.is_away or self._world.faults.occurs("redis_fails"):
            raise redis.TimeoutError("no answer")


class FakePipeline:
    """Commands that go together, but of which only the first ones may arrive."""

    def __init__(self, world: RedisContext, process: Process) -> None:
        self._world = world
        self._process = process
        self._commands: list[tuple[Any, ...]] = []

    def __enter__(self) -> "FakePipeline":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is kept open."""

    def xadd(self, key: str, fields: Fields) -> None:
        self._commands.append(("XADD", key, fields))

    def publish(self, channel: str, message: bytes) -> None:
        self._commands.append(("PUBLISH", channel, message))

    def xtrim(self, key: str, *, minid: str, approximate: bool) -> None:
        assert not approximate
        self._commands.append(("XTRIM", key, minid))

    def execute(self, raise_on_error: bool = True) -> list[object]:
        self._process.switch()
        faults = self._world.faults
        if self._world.redis.is_away:
            raise redis.ConnectionError("connection refused")
        fails = faults.occurs("redis_fails")
        arrived = faults.rng.randint(0, len(self._commands)) if fails else len(self._commands)
        answers = [self._do(*command) for command in self._commands[:arrived]]
        self._process.crash_if_due()
        if fails:
            raise redis.ConnectionError("reset by peer")
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        if errors and raise_on_error:
            raise errors[0]
        return answers

    def _do(self, name: str, key: str, argument: Any) -> object:
        if name == "XADD":
            stream = self._world.redis
            if stream.keys[key] in stream.full or self._world.faults.occurs("redis_refuses"):
                return redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'")
            return self._world.redis.add(key, argument)
        if name == "XTRIM":
            return self._world.redis.trim(key, argument)
        return 1  # listens


def frames_after(
    entries: Sequence[tuple[StreamId, Fields]], position: StreamId
) -> list[tuple[StreamId, Fields]]:
    """Those that follow a position."""
    return [entry for entry in entries if entry[0] > position]

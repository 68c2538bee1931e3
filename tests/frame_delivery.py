"""Events on their way to real workers, by senders that fail and repeat themselves; or at once."""

import random
import threading
import time
import weakref
from collections.abc import Iterable, Sequence

import psycopg
import redis

from conditions import is_folded, wait_until
from event_histories import generate_runs, to_fields
from oracle import Event, project, to_envelope
from runfold.protocol.streams import connect, shard_of, stream_key
from runfold_storage.checkpoints.positions import load_positions
from runfold_storage.postgres import connections
from runfold_workers.consumer.committer import Committer
from runfold_workers.fold.frame_decoder import StreamEntry
from stream_frames import add_frame
from table_reader import count_rows, merge_all_deltas, read_dead_letters, read_projection

SHARDS = 4
EVENTS = 6000

Frame = tuple[int, dict[bytes, bytes]]


_senders: weakref.WeakSet["Sender"] = weakref.WeakSet()


def stop_senders() -> None:
    """Stop those that a test left at work when it failed: they would feed the tests after it."""
    for sender in list(_senders):
        sender.stop()


class Sender(threading.Thread):
    """Sends frames in their order; after an error it sends the latest ones again, and goes on.

    More than the one that failed, for a Redis that crashed may have lost what it had confirmed
    within the last second. A `endless` one keeps the last frame back, and goes on repeating those
    before it, until it is told to `finish`: whatever happens meanwhile happens under load.
    """

    def __init__(
        self, redis_url: str, frames: Sequence[Frame], *, pause_s: float, endless: bool = False
    ) -> None:
        super().__init__()
        _senders.add(self)
        self._url = redis_url
        self._frames = frames
        self._pause_s = pause_s
        self._may_finish = threading.Event()
        self._stopped = False
        if not endless:
            self._may_finish.set()
        self.total = self.allowed = len(frames)
        """How many there are, and may go by now."""
        self.failures = 0
        self.sent = 0
        """Frames, among them those that were sent again."""

    def finish(self) -> None:
        """Send the rest without a pause; returns when all is sent."""
        self._pause_s = 0
        self.allowed = self.total
        self._may_finish.set()
        self.join(60)
        assert not self.is_alive(), "the sender does not come to an end"

    def stop(self) -> None:
        """Send nothing more, also if there is more to send."""
        self._stopped = True
        if self.ident is not None:
            self.join(60)

    def run(self) -> None:
        client = connect(self._url)
        number = 0
        while number < len(self._frames) and not self._stopped:
            if number >= self.allowed:
                time.sleep(0.01)
                continue
            if number == len(self._frames) - 1 and not self._may_finish.is_set():
                number = max(number - 50, 0)
            shard, fields = self._frames[number]
            try:
                add_frame(client, shard, fields)
            except redis.RedisError:
                self.failures += 1
                number = max(number - 200, 0)
                time.sleep(0.1)
            else:
                self.sent += 1
                number += 1
                time.sleep(self._pause_s)
        client.close()


class PacedSender(threading.Thread):
    """Sends so many events a second, by the clock: what was late is made up for at once."""

    TICK_S = 0.05

    def __init__(self, redis_url: str, events: Sequence[Event], *, events_per_s: int) -> None:
        super().__init__()
        self._url = redis_url
        self._events = events
        self._per_tick = round(events_per_s * self.TICK_S)
        self.sent = 0

    def run(self) -> None:
        begin = time.monotonic()
        with connect(self._url) as client:
            for tick, first in enumerate(range(0, len(self._events), self._per_tick)):
                time.sleep(max(begin + tick * self.TICK_S - time.monotonic(), 0))
                portion = self._events[first : first + self._per_tick]
                with client.pipeline(transaction=False) as pipeline:
                    for shard, fields in make_frames(portion):
                        pipeline.xadd(stream_key(shard), fields)
                    pipeline.execute()
                self.sent += len(portion)


def interleave_runs(rng: random.Random, events: int) -> list[Event]:
    """Runs side by side, each in its own order, and some events a second time."""
    runs = generate_runs(seed=rng.randrange(1000), events=events)
    upcoming = [iter(run) for run in runs]
    turns = [index for index, run in enumerate(runs) for _ in run]
    rng.shuffle(turns)
    merged: list[Event] = []
    for index in turns:
        merged.append(next(upcoming[index]))
        if rng.random() < 0.02:
            merged.append(rng.choice(merged[-500:]))
    return merged


def make_frames(events: Sequence[Event], size: int = 40) -> list[Frame]:
    """Packed frames of so many events."""
    frames: list[Frame] = []
    waiting: dict[int, list[Event]] = {shard: [] for shard in range(SHARDS)}
    for event in events:
        of_shard = waiting[shard_of(event["run"], SHARDS)]
        of_shard.append(event)
        if len(of_shard) == size:
            frames.append((shard_of(event["run"], SHARDS), encode_fields(of_shard)))
            of_shard.clear()
    return frames + [(shard, encode_fields(left)) for shard, left in waiting.items() if left]


def encode_fields(events: Sequence[Event]) -> dict[bytes, bytes]:
    return to_fields(map(to_envelope, events), packed=True)


def fold(url: str, events: Iterable[Event], first: int = 1) -> None:
    """As a worker does that is started and stopped; `first` numbers the frames."""
    with connections.connect(url, autocommit=True) as connection:
        committer = Committer(connection)
        committer.own(range(SHARDS))
        frames = enumerate(make_frames(list(events)), first)
        committer.commit([StreamEntry(shard, f"{n}-0", fields) for n, (shard, fields) in frames])
        merge_all_deltas(connection)


def connect_to(url: str) -> psycopg.Connection:
    """A connection to read the tables with."""
    return connections.connect(url, autocommit=True)


def expire_leases(database: psycopg.Connection) -> None:
    """So that the next worker need not wait until those of a dead one expire."""
    database.execute("UPDATE leases SET expires_at = now() - interval '1 s'")
    database.execute("DELETE FROM workers")


def assert_exact(
    client: redis.Redis,
    database: psycopg.Connection,
    events: Sequence[Event],
    *,
    dead_letter_count: int = 0,
) -> None:
    """Every run, node, rollup and event is there once, and nothing else but dead letters."""
    wait_until(lambda: is_folded(client, database), what="everything to be folded")
    assert len(read_dead_letters(database)) == dead_letter_count
    expected, found = project(events, SHARDS), read_projection(database)
    assert len(found.ledger) == len(expected.ledger)
    assert found == expected


def count_consumed_frames(database: psycopg.Connection) -> int:
    """Frames that were committed."""
    return sum(position.consumed for position in load_positions(database).values())


def count_leases(database: psycopg.Connection) -> int:
    return count_rows(database, "leases")


def count_shards_by_worker(database: psycopg.Connection) -> dict[int, int]:
    """How many shards each worker holds by leases that run, by its process id."""
    rows = database.execute(
        """
        SELECT split_part(owner, ':', 2)::int, count(*)
        FROM leases WHERE expires_at > now() GROUP BY owner
        """
    )
    return dict(rows.fetchall())

"""What a worker announces after a commit: how far the feed goes now, and the rows that changed.

Redis carries it to whoever listens, and may lose it. PostgreSQL stays the truth: an announcement
says nothing that is not committed, its changes have the numbers that they have in `changes`, and
who misses one finds a gap in these numbers and reads `changes` instead (`change_feed`). Without the
rows each reader would ask PostgreSQL for what was in a worker's memory a moment ago, which took as
long as to fold it.
"""

from operator import attrgetter
from typing import Final

import msgspec
from msgspec import Struct

from runfold_storage.records.rows import Batch, RunRow

from .reader import Change, Changes, Cursor, Key

MOST_RUNS: Final = 1_000
MOST_BYTES: Final = 512 * 1024
"""Of a larger batch no rows are announced: Redis drops a listener that is slow to take them."""
_FORM: Final = 1
"""Of the message; whoever does not know it reads `changes`."""


class NotifiedRun(Struct, array_like=True, frozen=True):
    """A row as it was committed; `is_new`: it was not there before."""

    feed_seq: int
    is_new: bool
    row: RunRow


class NotificationMessage(Struct, array_like=True, frozen=True):
    """By shard the last number of its changes, and what they were, unless they are too many.

    `runs` are in the order of their numbers within each shard.
    """

    form: int
    reached: dict[int, int]
    runs: list[NotifiedRun] | None

    def behind(self, cursor: Cursor) -> "Notification | None":
        """What it adds for a reader who is there; None where it does not follow on from that."""
        if self.runs is None:
            return None
        now = list(cursor)
        changed: list[Change] = []
        rows: dict[Key, RunRow] = {}
        for run in self.runs:
            row, shard, feed_seq = run.row, run.row.shard, run.feed_seq
            if shard >= len(now) or feed_seq > now[shard] + 1:
                return None
            if feed_seq <= now[shard]:
                continue  # the reader was faster
            now[shard] = feed_seq
            changed.append(Change(shard, feed_seq, row.run, is_new=run.is_new))
            rows[shard, row.run] = row
        if any(shard >= len(now) or now[shard] < last for shard, last in self.reached.items()):
            return None
        return Notification(Changes(tuple(now), changed), rows)


class Notification(Struct, frozen=True):
    """Changes that need not be read, and the rows of their runs."""

    changes: Changes
    rows: dict[Key, RunRow]


def encode_notification(batch: Batch, *, with_runs: bool) -> bytes:
    """The message for a batch that is committed."""
    reached = {step.shard: step.feed_seq for step in batch.advances}
    if with_runs and len(batch.new_runs) + len(batch.changed_runs) <= MOST_RUNS:
        runs = [NotifiedRun(feed_seq, True, row) for row, feed_seq in batch.new_runs]
        runs += [NotifiedRun(feed_seq, False, row) for row, feed_seq in batch.changed_runs]
        runs.sort(key=attrgetter("feed_seq"))
        message = msgspec.msgpack.encode(NotificationMessage(_FORM, reached, runs))
        if len(message) <= MOST_BYTES:
            return message
    return msgspec.msgpack.encode(NotificationMessage(_FORM, reached, None))


def decode_notification(message: bytes) -> NotificationMessage | None:
    """None for what another version of this has sent."""
    try:
        announcement = _DECODER.decode(message)
    except msgspec.DecodeError:
        return None
    return announcement if announcement.form == _FORM else None


_DECODER: Final = msgspec.msgpack.Decoder(NotificationMessage)

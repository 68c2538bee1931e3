"""Notifications that workers publish after a commit: the end of the feed, and the changed rows.

Redis delivers them to all listeners, and may lose some. PostgreSQL stays the truth: a notification
has only committed changes, with their numbers in `changes`, so a reader that misses one finds a gap
and reads `changes` instead. Without the rows, each reader would query PostgreSQL for what a worker
had just written, which took as long as folding it.
"""

from operator import attrgetter
from typing import Final

import msgspec
from msgspec import Struct

from runfold_storage.records.rows import Batch, RunRow

from .reader import Change, Changes, Cursor, Key

MOST_RUNS: Final = 1_000
MOST_BYTES: Final = 512 * 1024
"""Larger batches are published without rows: Redis drops listeners that are slow to read."""
_FORM: Final = 1
"""The version of the message; a reader of another version reads `changes`."""


class NotifiedRun(Struct, array_like=True, frozen=True):
    """A row as it was committed; `is_new`: the run is new."""

    change_seq: int
    is_new: bool
    row: RunRow


class NotificationMessage(Struct, array_like=True, frozen=True):
    """The last number of the changes by shard, and the changed rows unless they are too many.

    `runs` are ordered by number within each shard.
    """

    form: int
    reached: dict[int, int]
    runs: list[NotifiedRun] | None

    def behind(self, cursor: Cursor) -> "Notification | None":
        """Return what is new after `cursor`; None if there is a gap between the two."""
        if self.runs is None:
            return None
        now = list(cursor)
        changed: list[Change] = []
        rows: dict[Key, RunRow] = {}
        for run in self.runs:
            row, shard, change_seq = run.row, run.row.shard, run.change_seq
            if shard >= len(now) or change_seq > now[shard] + 1:
                return None
            if change_seq <= now[shard]:
                continue  # the reader has it already
            now[shard] = change_seq
            changed.append(Change(shard, change_seq, row.run, is_new=run.is_new))
            rows[shard, row.run] = row
        if any(shard >= len(now) or now[shard] < last for shard, last in self.reached.items()):
            return None
        return Notification(Changes(tuple(now), changed), rows)


class Notification(Struct, frozen=True):
    """Changes that need not be read from PostgreSQL, and the rows of their runs."""

    changes: Changes
    rows: dict[Key, RunRow]


def encode_notification(batch: Batch, *, with_runs: bool) -> bytes:
    """Encode the message for a committed batch."""
    reached = {step.shard: step.change_seq for step in batch.advances}
    if with_runs and len(batch.new_runs) + len(batch.changed_runs) <= MOST_RUNS:
        runs = [NotifiedRun(change_seq, True, row) for row, change_seq in batch.new_runs]
        runs += [NotifiedRun(change_seq, False, row) for row, change_seq in batch.changed_runs]
        runs.sort(key=attrgetter("change_seq"))
        message = msgspec.msgpack.encode(NotificationMessage(_FORM, reached, runs))
        if len(message) <= MOST_BYTES:
            return message
    return msgspec.msgpack.encode(NotificationMessage(_FORM, reached, None))


def decode_notification(message: bytes) -> NotificationMessage | None:
    """Decode a message; None if it is of another version."""
    try:
        announcement = _DECODER.decode(message)
    except msgspec.DecodeError:
        return None
    return announcement if announcement.form == _FORM else None


_DECODER: Final = msgspec.msgpack.Decoder(NotificationMessage)

"""The feed of changes: which runs changed, in the order in which the fold committed it.

Each batch numbers the run rows that it writes, per shard (`feed_seq`), and leaves a row in
`changes` in its own transaction. So a reader who has come as far as a number misses nothing that
was committed behind it and is told nothing twice, whoever restarts. Rows are kept for
`KEPT_MINUTES`: who comes back later, or has too many changes to catch up with, starts from a
snapshot.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

import psycopg

from runfold_storage.postgres.binary_format import bytea_array, int2_array, int8_array
from runfold_storage.postgres.bulk_write import Binary
from runfold_storage.records.rows import RunRow

KEPT_MINUTES: Final = 10

ENTRY_BYTES: Final = 17
"""A flag and the run's key."""
CHANGED: Final = b"\0"
NEW: Final = b"\1"
"""It was not there before."""
BEHIND: Final = b"\2"
"""It was changed by something else than the fold (`positions.change_behind`)."""


class ChangeRow(NamedTuple):
    """What a batch says of one shard: entries for the numbers that end with `feed_seq`."""

    shard: int
    feed_seq: int
    runs: bytes


def change_rows(
    new: Iterable[tuple[RunRow, int]], changed: Iterable[tuple[RunRow, int]]
) -> list[ChangeRow]:
    """What a batch has to say of the run rows that it writes, each with its number."""
    entries = [(row.shard, feed_seq, NEW + row.run) for row, feed_seq in new]
    entries += [(row.shard, feed_seq, CHANGED + row.run) for row, feed_seq in changed]
    entries.sort()
    found = []
    for shard, group in groupby(entries, key=itemgetter(0)):
        own = list(group)
        found.append(ChangeRow(shard, own[-1][1], b"".join(entry for _, _, entry in own)))
    return found


def write_changes(connection: psycopg.Connection, rows: Sequence[ChangeRow]) -> None:
    """Part of the transaction that writes the runs."""
    connection.execute(NOTE, [Binary(each) for each in notes_of(rows)])


def notes_of(rows: Sequence[ChangeRow]) -> list[bytes]:
    """The parameters of `NOTE`, in binary form."""
    return [
        int2_array([row.shard for row in rows]),
        int8_array([row.feed_seq for row in rows]),
        bytea_array([row.runs for row in rows]),
    ]


NOTE: Final = """
    INSERT INTO changes (shard, feed_seq, runs)
    SELECT * FROM unnest(%b::smallint[], %b::bigint[], %b::bytea[])
"""


def forget_changes(connection: psycopg.Connection) -> None:
    """Let go of what is older than `KEPT_MINUTES`."""
    connection.execute(
        "DELETE FROM changes WHERE changed_at < now() - make_interval(mins => %s)", (KEPT_MINUTES,)
    )


def entries_of(runs: bytes) -> list[tuple[bytes, bool]]:
    """The runs that a row of `changes` is about, in the order of their numbers.

    Of each its key, and whether it was not there before.
    """
    return [
        (runs[at + 1 : at + ENTRY_BYTES], runs[at : at + 1] == NEW)
        for at in range(0, len(runs), ENTRY_BYTES)
    ]

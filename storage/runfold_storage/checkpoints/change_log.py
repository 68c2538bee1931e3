"""The change log: which runs changed, in the order in which the fold committed them.

Each batch numbers the run rows that it writes, per shard (`change_seq`), and adds a row to
`changes` in its own transaction. So a reader that has read up to a number neither misses a later
commit nor sees a change twice, even if it or a worker restarts. Rows are kept for `KEPT_MINUTES`; a
reader that returns later, or that has too many changes to catch up with, starts from a snapshot.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

import psycopg

from runfold_storage.postgres.binary_format import bytea_array, int2_array, int8_array
from runfold_storage.records.rows import RunRow

KEPT_MINUTES: Final = 10

ENTRY_BYTES: Final = 17
"""A flag and the run's key."""
CHANGED: Final = b"\0"
NEW: Final = b"\1"
"""The run is new."""
EXTERNAL: Final = b"\2"
"""Another process than the fold changed the run (`rollups.shard_lock.bump_generation`)."""


class ChangeRow(NamedTuple):
    """The changes of one shard in a batch: entries for the numbers that end with `change_seq`."""

    shard: int
    change_seq: int
    runs: bytes


def change_rows(
    new: Iterable[tuple[RunRow, int]], changed: Iterable[tuple[RunRow, int]]
) -> list[ChangeRow]:
    """Return the log's rows for the run rows that a batch writes, each with its number."""
    entries = [(row.shard, change_seq, NEW + row.run) for row, change_seq in new]
    entries += [(row.shard, change_seq, CHANGED + row.run) for row, change_seq in changed]
    entries.sort()
    found = []
    for shard, group in groupby(entries, key=itemgetter(0)):
        own = list(group)
        found.append(ChangeRow(shard, own[-1][1], b"".join(entry for _, _, entry in own)))
    return found


def change_parameters(rows: Sequence[ChangeRow]) -> list[bytes]:
    """Return the parameters of `INSERT_CHANGES`, in binary format."""
    return [
        int2_array([row.shard for row in rows]),
        int8_array([row.change_seq for row in rows]),
        bytea_array([row.runs for row in rows]),
    ]


INSERT_CHANGES: Final = """
    INSERT INTO changes (shard, change_seq, runs)
    SELECT * FROM unnest(%b::smallint[], %b::bigint[], %b::bytea[])
"""


def delete_old_changes(connection: psycopg.Connection) -> None:
    """Delete rows older than `KEPT_MINUTES`."""
    connection.execute(
        "DELETE FROM changes WHERE changed_at < now() - make_interval(mins => %s)", (KEPT_MINUTES,)
    )


def decode_entries(runs: bytes) -> list[tuple[bytes, bool]]:
    """Return (run key, is it new) for each entry in a row of `changes`, ordered by number."""
    return [
        (runs[at + 1 : at + ENTRY_BYTES], runs[at : at + 1] == NEW)
        for at in range(0, len(runs), ENTRY_BYTES)
    ]

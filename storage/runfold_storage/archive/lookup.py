"""Find one run in the archive: by the names of files, then by the statistics of their row groups.

This reads the listing of one folder and, as a rule, one row group of one file. Keys of ids that
callers chose are hashes, so each file of their shard may have one: these are read in parallel.
Tombstones in the archive show which runs were deleted, also after the database was lost.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from runfold.protocol.ids import run_key_bytes
from runfold.protocol.streams import shard_of
from runfold_storage.ledger.events import LedgerEvent
from runfold_storage.records.rows import NodeRow, RunRow

from .layout import EVENTS, NODES, RUNS, TOMBSTONES, ArchivedFile, folder_of
from .schema import as_numbers, to_node, to_run
from .store import Archive

THREADS: Final = 8


class ArchivedRun(NamedTuple):
    """The rows of a run at the time when it was archived."""

    row: RunRow
    nodes: list[NodeRow]


def find_run(archive: Archive, run: str) -> ArchivedRun | None:
    """Return the rows of a run; None if the archive has none, or the run was deleted."""
    found = list(_rows(archive, RUNS, run))
    if not found or is_deleted(archive, run):
        return None
    # A run that was restored and expired again has several rows: the newest is the most complete.
    row = max((to_run(row) for row in found), key=lambda row: row.last_event_us)
    nodes = {}
    for raw in _rows(archive, NODES, run):
        node = to_node(raw)
        nodes[node.node, node.attempt] = node
    return ArchivedRun(row, list(nodes.values()))


def has_run(archive: Archive, run: str) -> bool:
    """Return whether the archive has rows of this run, and the run was not deleted."""
    return any(True for _ in _rows(archive, RUNS, run, [])) and not is_deleted(archive, run)


def is_deleted(archive: Archive, run: str) -> bool:
    """Return whether the archive has a tombstone of this run."""
    return any(True for _ in _rows(archive, TOMBSTONES, run, []))


def find_events(archive: Archive, run: str) -> Iterator[LedgerEvent]:
    """Yield the events of a run, in no order and with possible duplicates."""
    for row in _rows(archive, EVENTS, run, ["id", "at", "type", "body"]):
        yield LedgerEvent(row["key"], row["id"], row["at"], row["type"], row["body"])


def archived_keys(archive: Archive, shard: int, shards: int, keys: Sequence[bytes]) -> set[bytes]:
    """Return the runs of a shard whose rows the archive has."""
    wanted: dict[str, set[bytes]] = {}
    for key in keys:
        wanted.setdefault(folder_of(RUNS, key), set()).add(key)
    found: set[bytes] = set()
    for folder, own in wanted.items():
        first, last = min(own), max(own)
        for file in archive.files(folder):
            name = file.name
            is_near = name.first <= last and first <= name.last
            if (name.shard, name.shards) == (shard, shards) and is_near:
                for table in _groups(archive, file, first, last, ["key"]):
                    found.update(own.intersection(table.column("key").to_pylist()))
    return found


def _rows(
    archive: Archive, kind: str, run: str, columns: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    key = run_key_bytes(run)
    files = [
        file
        for file in archive.files(folder_of(kind, key))
        if file.name.first <= key <= file.name.last
        and shard_of(run, file.name.shards) == file.name.shard
    ]
    read = None if columns is None else ["key", *columns]
    with ThreadPoolExecutor(THREADS) as threads:
        tables = list(threads.map(lambda file: list(_groups(archive, file, key, key, read)), files))
    for table in chain.from_iterable(tables):
        yield from as_numbers(table).to_pylist()


def _groups(
    archive: Archive, file: ArchivedFile, first: bytes, last: bytes, columns: list[str] | None
) -> Iterator[Any]:
    """Yield the rows with keys in this range from each row group that may have some."""
    with archive.reading(file.path) as source:
        parquet = pq.ParquetFile(source)
        place = parquet.schema_arrow.get_field_index("key")
        for number in range(parquet.metadata.num_row_groups):
            statistics = parquet.metadata.row_group(number).column(place).statistics
            is_known = statistics is not None and statistics.has_min_max
            if is_known and (statistics.max < first or statistics.min > last):
                continue
            table = parquet.read_row_group(number, columns=columns)
            keys = table.column("key")
            kind = pa.binary(16)
            within = pc.and_(
                pc.greater_equal(keys, pa.scalar(first, kind)),
                pc.less_equal(keys, pa.scalar(last, kind)),
            )
            yield table.filter(within)

"""Purge deleted runs from the files of the archive; nothing else changes files.

If a process dies halfway, the old file remains beside the new one, and the next purge processes it
again.
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from runfold_storage.errors import ArchiveUnusable

from .file_writer import DICTIONARIES
from .layout import EVENTS, NODES, RUNS, TOMBSTONES, ArchivedFile
from .schema import SCHEMAS
from .store import Archive, files_of


def deleted_keys(archive: Archive) -> set[bytes]:
    """Return the keys of all tombstones in the archive."""
    gone: set[bytes] = set()
    for file in files_of(archive, TOMBSTONES):
        with archive.reading(file.path) as source:
            gone.update(pq.ParquetFile(source).read(columns=["key"]).column("key").to_pylist())
    return gone


def purge(
    archive: Archive, gone: set[bytes], on_progress: Callable[[int], None]
) -> tuple[int, int]:
    """Remove these runs; return the number of changed files and of removed events."""
    wanted = pa.array(sorted(gone), pa.binary(16))
    files = events = 0
    for kind in (EVENTS, NODES, RUNS):
        for file in files_of(archive, kind):
            removed = _take_out(archive, kind, file, wanted)
            files += removed > 0
            events += removed if kind == EVENTS else 0
            on_progress(files)
    return files, events


def _take_out(archive: Archive, kind: str, file: ArchivedFile, gone: Any) -> int:
    with archive.reading(file.path) as source:
        parquet = pq.ParquetFile(source)
        keys = parquet.read(columns=["key"]).column("key")
        is_left = pc.invert(pc.is_in(keys, value_set=gone))
        left = keys.filter(is_left)
        removed = len(keys) - len(left)
        if removed and len(left):
            with archive.writing() as (path, sink):
                _copy(kind, parquet, gone, sink)
    if not removed:
        return 0
    if len(left):
        _check(archive, path, left)
        name = file.name._replace(first=left[0].as_py(), last=left[-1].as_py())
        folder = file.path.rpartition("/")[0]
        if archive.publish(path, folder, name) == file.path:
            return removed
    archive.remove(file.path)
    return removed


def _copy(kind: str, parquet: Any, gone: Any, sink: Any) -> None:
    with pq.ParquetWriter(
        sink, SCHEMAS[kind], compression="zstd", use_dictionary=DICTIONARIES[kind]
    ) as writer:
        for number in range(parquet.num_row_groups):
            table = parquet.read_row_group(number)
            table = table.filter(pc.invert(pc.is_in(table.column("key"), value_set=gone)))
            if table.num_rows:
                writer.write_table(table, row_group_size=table.num_rows)


def _check(archive: Archive, path: str, left: Any) -> None:
    with archive.reading(path) as source:
        found = pq.ParquetFile(source).read(columns=["key"]).column("key")
    if found.to_pylist() != left.to_pylist():
        archive.remove(path)
        raise ArchiveUnusable(f"{archive.shown}: a file that was written there has other contents")

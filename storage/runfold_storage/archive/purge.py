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

from .file_writer import open_writer, read_keys
from .layout import EVENTS, NODES, RUNS, TOMBSTONES, ArchivedFile
from .store import Archive, files_of


def deleted_keys(archive: Archive) -> set[bytes]:
    """Return the keys of all tombstones in the archive."""
    gone: set[bytes] = set()
    for file in files_of(archive, TOMBSTONES):
        gone.update(read_keys(archive, file.path).to_pylist())
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
    keys = read_keys(archive, file.path)
    left = _without(keys, keys, gone)
    removed = len(keys) - len(left)
    if removed and len(left):
        with archive.reading(file.path) as source, archive.writing() as (path, sink):
            _copy(kind, pq.ParquetFile(source), gone, sink)
        if read_keys(archive, path).to_pylist() != left.to_pylist():
            archive.remove(path)
            raise ArchiveUnusable(f"{archive.shown}: a file written there has other contents")
        name = file.name._replace(first=left[0].as_py(), last=left[-1].as_py())
        if archive.publish(path, file.path.rpartition("/")[0], name) == file.path:
            return removed
    if removed:
        archive.remove(file.path)
    return removed


def _copy(kind: str, parquet: Any, gone: Any, sink: Any) -> None:
    with open_writer(kind, sink) as writer:
        for number in range(parquet.num_row_groups):
            table = parquet.read_row_group(number)
            table = _without(table, table.column("key"), gone)
            if table.num_rows:
                writer.write_table(table, row_group_size=table.num_rows)


def _without(rows: Any, keys: Any, gone: Any) -> Any:
    return rows.filter(pc.invert(pc.is_in(keys, value_set=gone)))

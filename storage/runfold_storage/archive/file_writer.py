"""Write rows into files: sorted by key, in row groups, and read back before a file gets its name.

Memory holds one row group. A run is never split, so one file has all rows that a step has of it,
and no two files of a step have the same name.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from runfold_storage.errors import ArchiveUnusable

from .layout import DEFAULT_LIMITS, EVENTS, FileLimits, Name, folder_of
from .schema import SCHEMAS, table_of
from .store import Archive

Row = tuple[Any, ...]


class Files:
    """Files of one kind and shard, one after the other; rows are added in the order of their keys.

    As a context manager it names each file once it is complete; an error leaves no partial file.
    """

    def __init__(
        self,
        archive: Archive,
        kind: str,
        shard: int,
        shards: int,
        token: UUID,
        limits: FileLimits = DEFAULT_LIMITS,
    ) -> None:
        self._archive = archive
        self._limits = limits
        self._kind = kind
        self._place = (shard, shards)
        self._token = token
        self._group: list[Row] = []
        self._group_bytes = self._file_bytes = 0
        self._file: _File | None = None
        self._folder = ""
        self._last = b""
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._end_file()
        elif self._file is not None:
            self._file.abandon()

    def add(self, rows: Sequence[Row]) -> None:
        """Add the next rows, each beginning with its key."""
        for row in rows:
            key = row[0]
            if key != self._last:
                folder = folder_of(self._kind, key)
                if folder != self._folder or self._file_bytes > self._limits.file_bytes:
                    self._end_file()
                    self._folder = folder
                self._last = key
            self._group.append(row)
            size = 64 + len(row[-1]) if self._kind == EVENTS else 200
            self._group_bytes += size
            self._file_bytes += size
            if (
                len(self._group) >= self._limits.group_rows
                or self._group_bytes >= self._limits.group_bytes
            ):
                self._end_group()
        self.rows += len(rows)

    def _end_group(self) -> None:
        if self._group:
            self._file = self._file or _File(self._archive, self._kind)
            self._file.write(self._group)
            self._group, self._group_bytes = [], 0

    def _end_file(self) -> None:
        self._end_group()
        file, self._file, self._file_bytes = self._file, None, 0
        if file is not None:
            file.publish(self._folder, *self._place, self._token)


class _File:
    """A file that is being written."""

    def __init__(self, archive: Archive, kind: str) -> None:
        self._archive = archive
        self._kind = kind
        self._writing = archive.writing()
        self._path, sink = self._writing.__enter__()
        self._writer = open_writer(kind, sink)
        self._rows = 0
        self._first = self._last = b""

    def write(self, rows: Sequence[Row]) -> None:
        try:
            self._writer.write_table(table_of(self._kind, rows), row_group_size=len(rows))
        except (OSError, pa.ArrowException) as error:
            raise ArchiveUnusable(f"{self._archive.shown}: {error}") from error
        self._first = self._first if self._rows else rows[0][0]
        self._last = rows[-1][0]
        self._rows += len(rows)

    def publish(self, folder: str, shard: int, shards: int, token: UUID) -> None:
        """Complete the file, read it back, and name it."""
        try:
            self._writer.close()
        except (OSError, pa.ArrowException) as error:
            self.abandon()
            raise ArchiveUnusable(f"{self._archive.shown}: {error}") from error
        self._writing.__exit__(None, None, None)
        name = Name(shard, shards, self._first, self._last, token)
        try:
            self._check()
            self._archive.publish(self._path, folder, name)
        except BaseException:
            with suppress(ArchiveUnusable):
                self._archive.remove(self._path)
            raise

    def abandon(self) -> None:
        """Remove the file."""
        error = ArchiveUnusable("abandoned")
        with suppress(ArchiveUnusable):
            self._writing.__exit__(ArchiveUnusable, error, None)

    def _check(self) -> None:
        """Check that the file can be read: the number of rows, the first and the last key."""
        keys = read_keys(self._archive, self._path)
        found = (len(keys), keys[0].as_py(), keys[-1].as_py())
        if found != (self._rows, self._first, self._last):
            raise ArchiveUnusable(
                f"{self._archive.shown}: {self._rows} rows were written, {found[0]} can be read"
            )


def open_writer(kind: str, sink: Any) -> Any:
    """Return a Parquet writer for files of this kind."""
    schema = SCHEMAS[kind]
    # Dictionaries help where values repeat; event ids and bodies do not.
    repeating = [name for name in schema.names if name not in ("id", "at", "body")]
    return pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=repeating)


def read_keys(archive: Archive, path: str) -> Any:
    """Return the keys of all rows of a file."""
    with archive.reading(path) as source:
        return pq.ParquetFile(source).read(columns=["key"]).column("key")

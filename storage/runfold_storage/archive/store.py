"""The archive's storage: a folder, or any file system of pyarrow or fsspec.

A file gets its name when it is complete and was read back; until then it is in `_writing/`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from runfold.protocol.ids import run_key_bytes
from runfold_storage.errors import ArchiveUnusable

from .layout import ArchivedFile, Name, parse_name
from .schema import SCHEMAS, as_numbers

_WRITING: Final = "_writing"
_UNFINISHED_AFTER: Final = timedelta(days=2)


class Archive:
    """The files of one archive; every method raises `ArchiveUnusable`."""

    def __init__(self, filesystem: Any, root: str, shown: str) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")
        self.shown = shown
        """The archive's address, without secrets."""

    def folders(self, kind: str) -> list[str]:
        """Return the folders of a kind, ordered by name."""
        with self._explained():
            return [f"{kind}/{info.base_name}" for info in self._list(kind) if not info.is_file]

    def files(self, folder: str) -> list[ArchivedFile]:
        """Return the complete files of a folder, ordered by name; other files are ignored."""
        with self._explained():
            found = [(info.base_name, parse_name(info.base_name)) for info in self._list(folder)]
        return [ArchivedFile(f"{folder}/{text}", name) for text, name in found if name is not None]

    @contextmanager
    def reading(self, path: str) -> Iterator[Any]:
        """Open a file for random access."""
        with self._explained(f"/{path}"), self._fs.open_input_file(self._at(path)) as file:
            yield file

    @contextmanager
    def writing(self) -> Iterator[tuple[str, Any]]:
        """Yield (path, file) of a new unnamed file, which is synced, or removed on an error."""
        path = f"{_WRITING}/{uuid4().hex}"
        with self._explained():
            self._fs.create_dir(self._at(_WRITING), recursive=True)
            try:
                with self._fs.open_output_stream(self._at(path)) as file:
                    yield path, file
                self._sync(path)
            except BaseException:
                self.remove(path)
                raise

    def publish(self, path: str, folder: str, name: Name) -> str:
        """Name a complete file, replacing one of the same name; return its path."""
        final = f"{folder}/{name.text()}"
        with self._explained():
            self._fs.create_dir(self._at(folder), recursive=True)
            self._fs.move(self._at(path), self._at(final))
            self._sync(folder)
        return final

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        with self._explained():
            if self._fs.get_file_info(self._at(path)).type != fs.FileType.NotFound:
                self._fs.delete_file(self._at(path))

    def remove_step(self, folder: str, token: UUID) -> None:
        """Remove the files of a step from a folder."""
        for file in self.files(folder):
            if file.name.token == token:
                self.remove(file.path)

    def remove_unfinished(self) -> None:
        """Remove unnamed files that are so old that no process can be writing them."""
        before = datetime.now(UTC) - _UNFINISHED_AFTER
        with self._explained():
            for info in self._list(_WRITING):
                if info.mtime is not None and info.mtime < before:
                    self._fs.delete_file(info.path)

    def check_writable(self) -> None:
        """Write a file, read it back, and remove it."""
        with self.writing() as (path, file):
            file.write(b"runfold")
        with self.reading(path) as file:
            if file.read() != b"runfold":
                raise ArchiveUnusable(
                    f"{self.shown}: a file that was written there has other contents"
                )
        self.remove(path)

    def _list(self, folder: str) -> list[Any]:
        selector = fs.FileSelector(self._at(folder), allow_not_found=True)
        return sorted(self._fs.get_file_info(selector), key=lambda info: str(info.base_name))

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _sync(self, path: str) -> None:
        """Sync a file or folder to disk; object stores are durable by themselves."""
        if isinstance(self._fs, fs.LocalFileSystem):
            descriptor = os.open(self._at(path), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @contextmanager
    def _explained(self, path: str = "") -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise ArchiveUnusable(f"{self.shown}{path}: {_one_line(error)}") from error


def open_archive(url: str) -> Archive:
    """Open an archive, in a folder or at a URL, creating nothing; raise `ArchiveUnusable`."""
    shown = _without_secrets(url)
    if "://" not in url:
        return Archive(fs.LocalFileSystem(), str(Path(url).expanduser().absolute()), shown)
    try:
        filesystem, root = fs.FileSystem.from_uri(url)
    except pa.ArrowInvalid as error:
        return _by_fsspec(url, shown, error)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise ArchiveUnusable(f"{shown}: {_one_line(error)}") from error
    return Archive(filesystem, root, shown)


def _by_fsspec(url: str, shown: str, error: Exception) -> Archive:
    """Open a URL with a scheme that only fsspec supports."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        reason = f"{_one_line(error)}; other schemes need fsspec (pip install fsspec)"
        raise ArchiveUnusable(f"{shown}: {reason}") from error
    try:
        filesystem, root = url_to_fs(url)
    except (OSError, ValueError, ImportError) as refused:
        raise ArchiveUnusable(f"{shown}: {_one_line(refused)}") from refused
    return Archive(fs.PyFileSystem(fs.FSSpecHandler(filesystem)), root, shown)


def _without_secrets(url: str) -> str:
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _one_line(error: Exception) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())


def files_of(archive: Archive, kind: str) -> list[ArchivedFile]:
    """Return all files of a kind, ordered by path."""
    found = [file for folder in archive.folders(kind) for file in archive.files(folder)]
    return sorted(found, key=lambda file: file.path)


def read_groups(
    archive: Archive, kind: str, file: ArchivedFile, first: int
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield (number, rows) of the row groups of a file, from `first` on, with times as numbers."""
    with archive.reading(file.path) as source:
        parquet = pq.ParquetFile(source)
        missing = set(SCHEMAS[kind].names) - set(parquet.schema_arrow.names)
        if missing:
            raise ArchiveUnusable(
                f"{archive.shown}/{file.path}: has no column {min(missing)}: not one of ours, or"
                " of a later Runfold"
            )
        for number in range(first, parquet.num_row_groups):
            rows = as_numbers(parquet.read_row_group(number, SCHEMAS[kind].names)).to_pylist()
            if any("run" in row and run_key_bytes(row["run"]) != row["key"] for row in rows):
                raise ArchiveUnusable(
                    f"{archive.shown}/{file.path}: row group {number} has runs under the keys of"
                    " others: the file is damaged"
                )
            yield number, rows

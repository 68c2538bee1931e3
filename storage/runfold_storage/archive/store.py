"""Where the archive is: a folder, or any place that pyarrow or fsspec has a file system for.

A file gets its name when it is complete and was read back; what has no name yet is in `_writing/`.
Nothing but `purging` changes any, so readers need no locks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from runfold.protocol.ids import run_key_bytes
from runfold_storage.errors import ArchiveUnusable

from .layout import KINDS, ArchivedFile, Name, parse_name
from .schema import SCHEMAS, as_numbers

_WRITING: Final = "_writing"
_UNFINISHED_AFTER: Final = timedelta(days=2)


class Archive:
    """The files of one archive; every method raises `ArchiveUnusable`."""

    def __init__(self, filesystem: Any, root: str, shown: str) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")
        self.shown = shown
        """Its address, without secrets."""

    def folders(self, kind: str) -> list[str]:
        """Those of a kind, in their order."""
        with self._explained():
            return [f"{kind}/{info.base_name}" for info in self._list(kind) if not info.is_file]

    def files(self, folder: str) -> list[ArchivedFile]:
        """The complete files of a folder, by name; what else lies there is none of ours."""
        with self._explained():
            found = [(info.base_name, parse_name(info.base_name)) for info in self._list(folder)]
        return [ArchivedFile(f"{folder}/{text}", name) for text, name in found if name is not None]

    def is_empty(self) -> bool:
        """Whether there is no archive, or nothing in it."""
        return not any(self.files(folder) for kind in KINDS for folder in self.folders(kind))

    @contextmanager
    def reading(self, path: str) -> Iterator[Any]:
        """A file to read, at any place of it."""
        with self._explained(f"/{path}"), self._fs.open_input_file(self._at(path)) as file:
            yield file

    @contextmanager
    def writing(self) -> Iterator[tuple[str, Any]]:
        """A new file without a name, (path, file); it is on disk at the end, or it is removed."""
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
        """Give a file that was written its name; one of the same name is replaced."""
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
        """Remove what a step that is begun anew has left in a folder."""
        for file in self.files(folder):
            if file.name.token == token:
                self.remove(file.path)

    def remove_unfinished(self) -> None:
        """Remove what never got a name, and is so old that nobody can be writing it."""
        before = datetime.now(UTC) - _UNFINISHED_AFTER
        with self._explained():
            for info in self._list(_WRITING):
                if info.mtime is not None and info.mtime < before:
                    self._fs.delete_file(info.path)

    def check_writable(self) -> None:
        """Write something, read it, and remove it."""
        with self.writing() as (path, file):
            file.write(b"runfold")
        with self.reading(path) as file:
            if file.read() != b"runfold":
                raise ArchiveUnusable(f"{self.shown}: what was written there reads otherwise")
        self.remove(path)

    def _list(self, folder: str) -> list[Any]:
        selector = fs.FileSelector(self._at(folder), allow_not_found=True)
        return sorted(self._fs.get_file_info(selector), key=lambda info: str(info.base_name))

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _sync(self, path: str) -> None:
        """Until it would survive a loss of power; object stores promise that by themselves."""
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
    """The archive in a folder, or at an address of pyarrow's or fsspec's; nothing is made there.

    Raises `ArchiveUnusable` where there is no such file system; object stores may be asked.
    """
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
    """For the schemes that pyarrow does not know itself."""
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


class Group(NamedTuple):
    """Some rows of a file, times as microseconds; `number` counts from 0."""

    number: int
    rows: list[dict[str, Any]]


def files_of(archive: Archive, kind: str) -> list[ArchivedFile]:
    """All of a kind, in the order of their paths."""
    found = [file for folder in archive.folders(kind) for file in archive.files(folder)]
    return sorted(found, key=lambda file: file.path)


def read_groups(archive: Archive, kind: str, file: ArchivedFile, first: int) -> Iterator[Group]:
    """The row groups of a file, from this one on; `ArchiveUnusable` names a file that is broken."""
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
            yield Group(number, rows)

"""The whole archive, a row group at a time, in the order of its files."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from runfold.ids import run_key_bytes

from ..errors import ArchiveUnusable
from .columns import SCHEMAS, as_numbers
from .names import ArchivedFile
from .place import Archive


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

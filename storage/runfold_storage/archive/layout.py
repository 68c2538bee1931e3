"""The names of the archive's files.

    events/week=2026w33/00003of00008-FIRST-LAST-TOKEN.parquet
    runs/…  nodes/…  tombstones/week=all/…  stats/week=all/…

FIRST and LAST are the keys of the first and the last run in the file, so a listing shows which
files may have a run. TOKEN names the step of retention that wrote the file, so that the files of an
unfinished step can be found.
"""

from typing import Final, NamedTuple
from uuid import UUID

from msgspec import Struct

from runfold_storage.ledger.partitions import week_of

EVENTS, RUNS, NODES, STATS, TOMBSTONES = "events", "runs", "nodes", "stats", "tombstones"
KINDS: Final = (EVENTS, RUNS, NODES, STATS, TOMBSTONES)
ALL: Final = "all"
OWN: Final = "own"

_SUFFIX: Final = ".parquet"


class FileLimits(Struct, frozen=True):
    """When a row group and a file end."""

    group_rows: int = 20_000
    group_bytes: int = 8 * 1024 * 1024
    """A row group ends with the first row beyond: the least that reading one run costs."""
    file_bytes: int = 512 * 1024 * 1024
    """A file ends with the first run beyond; measured in memory, before compression."""


DEFAULT_LIMITS: Final = FileLimits()


class Name(NamedTuple):
    """The parts of a file's name; for statistics, both keys are zero."""

    shard: int
    shards: int
    first: bytes
    last: bytes
    token: UUID

    def text(self) -> str:
        """Return the file's name."""
        keys = f"{self.first.hex()}-{self.last.hex()}-{self.token.hex}"
        return f"{self.shard:05}of{self.shards:05}-{keys}{_SUFFIX}"


class ArchivedFile(NamedTuple):
    """A complete file; `path` is relative to the archive."""

    path: str
    name: Name


def folder_of(kind: str, key: bytes) -> str:
    """Return the folder of the files that may have a run with this key."""
    if kind in (STATS, TOMBSTONES):
        return f"{kind}/week={ALL}"
    week = week_of(UUID(bytes=key))
    if week is None:
        return f"{kind}/week={OWN}"
    year, number, _ = week.isocalendar()
    return f"{kind}/week={year}w{number:02}"


def parse_name(text: str) -> Name | None:
    """Parse a file's name; None for files of other programs."""
    places, _, keys = text.removesuffix(_SUFFIX).partition("-")
    shard, _, shards = places.partition("of")
    parts = keys.split("-")
    if not text.endswith(_SUFFIX) or len(parts) != 3:
        return None
    try:
        first, last, token = map(bytes.fromhex, parts)
        name = Name(int(shard), int(shards), first, last, UUID(bytes=token))
    except ValueError:
        return None
    return name if name.text() == text else None

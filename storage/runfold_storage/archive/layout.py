"""How the files of the archive are called.

    events/week=2026w33/00003of00008-FIRST-LAST-TOKEN.parquet
    runs/…  nodes/…  tombstones/week=all/…  stats/week=all/…

FIRST and LAST are the keys of the first and the last run inside, so that a listing tells which
files may have a run. TOKEN names the step of retention that wrote the file, so that what a step
left that did not live to end can be found.
"""

from typing import Final, NamedTuple
from uuid import UUID

from runfold_storage.ledger.partitions import week_of

EVENTS, RUNS, NODES, STATS, TOMBSTONES = "events", "runs", "nodes", "stats", "tombstones"
KINDS: Final = (EVENTS, RUNS, NODES, STATS, TOMBSTONES)
ALL: Final = "all"
OWN: Final = "own"

_SUFFIX: Final = ".parquet"


class Name(NamedTuple):
    """What the name of a file says; for statistics the keys are zeros and say nothing."""

    shard: int
    shards: int
    first: bytes
    last: bytes
    token: UUID

    def text(self) -> str:
        """As the file is called."""
        keys = f"{self.first.hex()}-{self.last.hex()}-{self.token.hex}"
        return f"{self.shard:05}of{self.shards:05}-{keys}{_SUFFIX}"


class ArchivedFile(NamedTuple):
    """A complete file; `path` is that below the archive."""

    path: str
    name: Name


def folder_of(kind: str, key: bytes) -> str:
    """Where the files of a run with this key are."""
    if kind in (STATS, TOMBSTONES):
        return f"{kind}/week={ALL}"
    week = week_of(UUID(bytes=key))
    if week is None:
        return f"{kind}/week={OWN}"
    year, number, _ = week.isocalendar()
    return f"{kind}/week={year}w{number:02}"


def parse_name(text: str) -> Name | None:
    """None for a name that is none of ours."""
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

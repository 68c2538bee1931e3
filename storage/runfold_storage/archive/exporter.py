"""Export the data of a step from the tables into files.

The data does not change any more: its runs were marked or have tombstones, and no worker has them
cached. So pages from separate short statements are consistent, no transaction is open while files
are written, and memory holds one page.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, LiteralString, TypeVar

import psycopg
from msgspec import structs

from runfold.protocol.ids import is_own_id
from runfold_storage.ledger.events import load_external_ids, read_pages
from runfold_storage.projections.row_store import read_rows
from runfold_storage.retention.partition_expiry import detached_name

from . import journal
from .file_writer import Files, Row
from .journal import Step
from .layout import DEFAULT_LIMITS, EVENTS, NODES, RUNS, STATS, TOMBSTONES, FileLimits
from .lookup import archived_keys
from .schema import name_of, to_row
from .store import Archive

PAGE_RUNS: Final = 500
_NO_KEY: Final = bytes(16)

Item = TypeVar("Item")


class ArchiveExporter:
    """Exports steps of one database into one archive; raises `ArchiveUnusable`."""

    def __init__(
        self,
        connection: psycopg.Connection,
        archive: Archive,
        shards: int,
        limits: FileLimits = DEFAULT_LIMITS,
    ) -> None:
        self._connection = connection
        self._archive = archive
        self._shards = shards
        self._limits = limits
        self._events = self._runs = 0

    def write(self, step: Step, data: Sequence[Any] = ()) -> tuple[int, int]:
        """Write a step, which may have `data`; return its numbers of events and of rows of runs."""
        self._events = self._runs = 0
        if step.week is not None:
            for shard in range(self._shards):
                self._write_week(structs.replace(step, shard=shard), detached_name(step.week))
        elif step.kind == journal.PAYLOADS:
            self._write_payloads(step)
        elif step.kind == journal.ROWS:
            self._write_missing_rows(step)
        elif step.kind == journal.ROLLUPS:
            with self._files(STATS, step) as files:
                files.add([(_NO_KEY, step.shard, *old[:5], *old.figures) for old in data])
        elif step.kind == journal.TOMBSTONES:
            with self._files(TOMBSTONES, step) as files:
                files.add([(run.bytes, step.shard, deleted_us) for run, deleted_us in data])
        return self._events, self._runs

    def _write_payloads(self, step: Step) -> None:
        """Write the events of these runs, and their rows, so that the files are complete."""
        runs = sorted(step.runs)
        with self._files(EVENTS, step) as files:
            for portion in _portions(runs):
                for page in self._pages(_shard_of(step), "events", _OF_RUNS, runs=list(portion)):
                    files.add(page)
            self._events += files.rows
        self._write_rows(step, [run.bytes for run in runs])

    def _write_missing_rows(self, step: Step) -> None:
        """Write the rows of those runs that the archive does not have."""
        keys = [run.bytes for run in step.runs]
        known = archived_keys(self._archive, _shard_of(step), self._shards, keys)
        self._write_rows(step, sorted(key for key in keys if key not in known))

    def _write_week(self, step: Step, table: str) -> None:
        """Write all events of a detached table except deleted runs, and the rows of their runs."""
        last = _NO_KEY
        with self._files(EVENTS, step) as files, self._row_files(step) as row_files:
            for page in self._pages(_shard_of(step), table):
                files.add(page)
                keys = {key for key, *_ in page} - {last}
                last = page[-1][0]
                self._add_rows(_shard_of(step), sorted(keys), *row_files)
            self._events += files.rows

    def _write_rows(self, step: Step, keys: Sequence[bytes]) -> None:
        with self._row_files(step) as row_files:
            for portion in _portions(keys):
                self._add_rows(_shard_of(step), portion, *row_files)

    def _add_rows(self, shard: int, keys: Sequence[bytes], runs: Files, nodes: Files) -> None:
        stored = read_rows(self._connection, shard, keys)
        for key in sorted(stored):
            row, of_nodes = stored[key]
            run_id = name_of(key, None if row is None else row.external_id)
            if row is not None:
                runs.add([to_row(run_id, row)])
                self._runs += 1
            nodes.add([to_row(run_id, of_nodes[each]) for each in sorted(of_nodes)])

    @contextmanager
    def _row_files(self, step: Step) -> Iterator[tuple[Files, Files]]:
        with self._files(RUNS, step) as runs, self._files(NODES, step) as nodes:
            yield runs, nodes

    def _files(self, kind: str, step: Step) -> Files:
        shard = _shard_of(step)
        return Files(self._archive, kind, shard, self._shards, step.token, self._limits)

    def _pages(
        self, shard: int, table: str, condition: LiteralString = "true", **parameters: Any
    ) -> Iterator[list[Row]]:
        """Yield the rows of events, without those of deleted runs."""
        wanted = f"{condition} AND {_NOT_DELETED}"
        pages = read_pages(self._connection, shard, table=table, condition=wanted, **parameters)
        for page in pages:
            own = sorted({event.run for event in page if is_own_id(event.run)})
            names = load_external_ids(self._connection, shard, own) if own else {}
            yield [(run, name_of(run, names.get(run)), shard, *rest) for run, *rest in page]


def _shard_of(step: Step) -> int:
    assert step.shard is not None
    return step.shard


def _portions(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for first in range(0, len(items), PAGE_RUNS):
        yield items[first : first + PAGE_RUNS]


_OF_RUNS: Final = "e.run = ANY(%(runs)s::uuid[])"
_NOT_DELETED: Final = """NOT EXISTS (
    SELECT FROM tombstones AS t WHERE t.shard = e.shard AND t.run = e.run AND NOT t.is_expiry
)"""

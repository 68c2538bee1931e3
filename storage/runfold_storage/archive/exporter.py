"""Export the data of a step from the tables into files.

The data does not change any more: its runs were marked or have tombstones, and no worker has them
cached. So pages from separate short statements are consistent, no transaction is open while files
are written, and memory holds one page.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from uuid import UUID

import psycopg
from msgspec import structs
from psycopg import sql

from runfold.protocol.ids import is_own_id
from runfold_storage.ledger.events import load_external_ids
from runfold_storage.projections.row_store import read_rows
from runfold_storage.retention.rollup_expiry import OldRollup

from .file_writer import Files, Row
from .journal import Step, Tombstone
from .layout import EVENTS, NODES, RUNS, STATS, TOMBSTONES
from .lookup import archived_keys
from .schema import name_of, to_row
from .store import Archive

_LIMITS: Final = {"limit": 5000, "bytes": 16 * 1024 * 1024}
"""The most events in a page, and the size of their bodies."""
PAGE_RUNS: Final = 500
_NO_KEY: Final = bytes(16)

Item = TypeVar("Item")


class ArchiveExporter:
    """Exports steps of one database into one archive; raises `ArchiveUnusable`."""

    def __init__(self, connection: psycopg.Connection, archive: Archive, shards: int) -> None:
        self._connection = connection
        self._archive = archive
        self._shards = shards
        self._events = self._runs = 0

    def take_counts(self) -> tuple[int, int]:
        """Return how many events and rows of runs were written since the last call."""
        counts = self._events, self._runs
        self._events = self._runs = 0
        return counts

    def write_payloads(self, step: Step) -> None:
        """Write the events of these runs, and their rows, so that the files are complete."""
        runs = sorted(step.runs)
        with self._files(EVENTS, step) as files:
            for portion in _portions(runs):
                for page in self._pages("events", _shard_of(step), portion):
                    files.add(page)
            self._events += files.rows
        self._write_rows(step, [run.bytes for run in runs])

    def write_rows(self, step: Step) -> None:
        """Write the rows of those runs that the archive does not have."""
        keys = [run.bytes for run in step.runs]
        known = archived_keys(self._archive, _shard_of(step), self._shards, keys)
        self._write_rows(step, sorted(key for key in keys if key not in known))

    def write_week(self, step: Step, table: str, shards: Sequence[int]) -> None:
        """Write all events of a detached table except deleted runs, and the rows of their runs."""
        for shard in shards:
            of_shard = structs.replace(step, shard=shard)
            last = _NO_KEY
            with self._files(EVENTS, of_shard) as files, self._row_files(of_shard) as row_files:
                for page in self._pages(table, shard, None):
                    files.add(page)
                    keys = {key for key, *_ in page} - {last}
                    last = page[-1][0]
                    self._add_rows(shard, sorted(keys), *row_files)
                self._events += files.rows

    def write_rollups(self, step: Step, rollups: Sequence[OldRollup]) -> None:
        """Write rollups."""
        shard = _shard_of(step)
        with self._files(STATS, step) as files:
            files.add([(_NO_KEY, shard, *rollup[:5], *rollup.figures) for rollup in rollups])

    def write_tombstones(self, step: Step, tombstones: Sequence[Tombstone]) -> None:
        """Write the tombstones of runs deleted on request, ordered by key."""
        shard = _shard_of(step)
        with self._files(TOMBSTONES, step) as files:
            files.add([(run.bytes, shard, deleted_us) for run, deleted_us in tombstones])

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
        return Files(self._archive, kind, _shard_of(step), self._shards, step.token)

    def _pages(self, table: str, shard: int, runs: Sequence[UUID] | None) -> Iterator[list[Row]]:
        statement = sql.SQL(_PAGE).format(sql.Identifier(table))
        wanted = None if runs is None else list(runs)
        after = (UUID(int=0), -1)
        while True:
            found = self._connection.execute(
                statement,
                {"shard": shard, "run": after[0], "id": after[1], "runs": wanted, **_LIMITS},
            ).fetchall()
            if not found:
                return
            own = sorted({run.bytes for run, *_ in found if is_own_id(run)})
            names = load_external_ids(self._connection, shard, own) if own else {}
            yield [
                (run.bytes, name_of(run.bytes, names.get(run.bytes)), shard, event_id, *rest)
                for run, event_id, *rest in found
            ]
            after = found[-1][:2]


def _shard_of(step: Step) -> int:
    assert step.shard is not None
    return step.shard


def _portions(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for first in range(0, len(items), PAGE_RUNS):
        yield items[first : first + PAGE_RUNS]


_PAGE: Final[Any] = """
    WITH page AS (
        SELECT e.run, e.id, e.at, e.type, e.body FROM {} AS e
        WHERE e.shard = %(shard)s AND (e.run, e.id) > (%(run)s, %(id)s)
          AND (%(runs)s::uuid[] IS NULL OR e.run = ANY(%(runs)s::uuid[]))
          AND NOT EXISTS (
              SELECT FROM tombstones AS t
              WHERE t.shard = e.shard AND t.run = e.run AND NOT t.is_expiry
          )
        ORDER BY e.run, e.id LIMIT %(limit)s
    ), sized AS (
        SELECT *, sum(octet_length(body)) OVER (ORDER BY run, id) - octet_length(body) AS before
        FROM page
    )
    SELECT run, id, (extract(epoch FROM at) * 1000000)::bigint, type::text, body
    FROM sized WHERE before < %(bytes)s ORDER BY run, id
"""

"""Export the data of a step from the tables into files.

The data does not change any more: its runs were marked or have tombstones, and no worker has them
cached. So pages from separate short statements are consistent, no transaction is open while files
are written, and memory holds one page.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql

from runfold.protocol.ids import is_own_id
from runfold_storage.ledger.events import load_external_ids
from runfold_storage.projections.row_store import read_rows
from runfold_storage.retention.rollup_expiry import OldRollup

from .file_writer import Files, Row
from .journal import Step, Tombstone
from .layout import EVENTS, NODES, RUNS, STATS, TOMBSTONES
from .lookup import archived_keys
from .schema import name_of, row_of_node, row_of_run
from .store import Archive

PAGE_EVENTS: Final = 5000
PAGE_BYTES: Final = 16 * 1024 * 1024
PAGE_RUNS: Final = 500
_NO_KEY: Final = bytes(16)


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
        assert step.shard is not None
        runs = sorted(step.runs)
        self._write_events(step, step.shard, "events", runs)
        self._write_rows(step, step.shard, _portions(runs))

    def write_rows(self, step: Step) -> None:
        """Write the rows of those runs that the archive does not have."""
        assert step.shard is not None
        keys = [run.bytes for run in step.runs]
        known = archived_keys(self._archive, step.shard, self._shards, keys)
        runs = sorted(run for run in step.runs if run.bytes not in known)
        self._write_rows(step, step.shard, _portions(runs))

    def write_week(self, step: Step, table: str, shards: Sequence[int]) -> None:
        """Write all events of a detached table except deleted runs, and the rows of their runs."""
        for shard in shards:
            self._write_events(step, shard, table, None)
            self._write_rows(step, shard, self._runs_in(table, shard))

    def write_rollups(self, step: Step, rollups: Sequence[OldRollup]) -> None:
        """Write rollups."""
        shard = step.shard
        assert shard is not None
        with self._files(STATS, shard, step.token) as files:
            files.add([(_NO_KEY, shard, *rollup[:5], *rollup.figures) for rollup in rollups])

    def write_tombstones(self, step: Step, tombstones: Sequence[Tombstone]) -> None:
        """Write the tombstones of runs deleted on request, ordered by key."""
        shard = step.shard
        assert shard is not None
        with self._files(TOMBSTONES, shard, step.token) as files:
            files.add([(run.bytes, shard, deleted_us) for run, deleted_us in tombstones])

    def _write_events(
        self, step: Step, shard: int, table: str, runs: Sequence[UUID] | None
    ) -> None:
        with self._files(EVENTS, shard, step.token) as files:
            for portion in [None] if runs is None else _portions(runs):
                for page in self._pages(table, shard, portion):
                    files.add(page)
            self._events += files.rows

    def _write_rows(self, step: Step, shard: int, portions: Iterable[Sequence[UUID]]) -> None:
        with (
            self._files(RUNS, shard, step.token) as run_files,
            self._files(NODES, shard, step.token) as node_files,
        ):
            for portion in portions:
                stored = read_rows(self._connection, shard, [run.bytes for run in portion])
                for key in sorted(stored):
                    row, nodes = stored[key]
                    run_id = name_of(key, None if row is None else row.external_id)
                    if row is not None:
                        run_files.add([row_of_run(run_id, row)])
                    node_files.add([row_of_node(run_id, nodes[each]) for each in sorted(nodes)])
            self._runs += run_files.rows

    def _pages(self, table: str, shard: int, runs: Sequence[UUID] | None) -> Iterator[list[Row]]:
        statement = sql.SQL(_PAGE).format(sql.Identifier(table))
        after = (UUID(int=0), -1)
        while True:
            found = self._connection.execute(
                statement,
                {
                    "shard": shard,
                    "run": after[0],
                    "id": after[1],
                    "runs": None if runs is None else list(runs),
                    "limit": PAGE_EVENTS,
                    "bytes": PAGE_BYTES,
                },
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

    def _runs_in(self, table: str, shard: int) -> Iterator[list[UUID]]:
        """Yield the runs of a table in pages, skipping from key to key."""
        statement = sql.SQL(_NEXT_RUNS).format(sql.Identifier(table))
        after = UUID(int=0)
        while True:
            found = self._connection.execute(
                statement, {"shard": shard, "after": after, "limit": PAGE_RUNS}
            ).fetchall()
            if not found:
                return
            runs = [run for (run,) in found]
            yield runs
            after = runs[-1]

    def _files(self, kind: str, shard: int, token: UUID) -> Files:
        size_of = _size_of_event if kind == EVENTS else _size_of_row
        return Files(self._archive, kind, shard, self._shards, token, size_of)


def _size_of_event(row: Row) -> int:
    return len(row[-1]) + 64


def _size_of_row(_: Row) -> int:
    return 200


def _portions(runs: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    for first in range(0, len(runs), PAGE_RUNS):
        yield runs[first : first + PAGE_RUNS]


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
_NEXT_RUNS: Final[Any] = """
    WITH RECURSIVE found AS (
        (SELECT e.run FROM {0} AS e
         WHERE e.shard = %(shard)s AND e.run > %(after)s ORDER BY e.run LIMIT 1)
        UNION ALL
        SELECT following.run
        FROM found AS f CROSS JOIN LATERAL (
            SELECT e.run FROM {0} AS e
            WHERE e.shard = %(shard)s AND e.run > f.run ORDER BY e.run LIMIT 1
        ) AS following
    )
    SELECT run FROM found LIMIT %(limit)s
"""

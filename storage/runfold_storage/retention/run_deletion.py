"""Delete runs with their events and statistics; a tombstone rejects late events.

Invariant: rows, statistics and tombstone change in one transaction that locks the run's shard and
raises its generation, so no batch that had the run cached can be committed after it. The events,
which no reader sees behind a tombstone, are deleted afterwards in short transactions; until then
the tombstone has `events_left`, by which the next deletion, of any runs, finds them (`purge_left`).
"""
# ruff: noqa: S608 - joined from constants

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from msgspec import Struct
from psycopg.rows import namedtuple_row

from runfold.crash_points import crash_point
from runfold.protocol.ids import run_key
from runfold.protocol.streams import shard_of
from runfold_storage.checkpoints import throttle
from runfold_storage.checkpoints.positions import count_shards
from runfold_storage.checkpoints.throttle import ShardThrottle, portions
from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.jobs import JobInterrupted
from runfold_storage.ledger.run_keys import may_be_run
from runfold_storage.postgres.connections import scalar
from runfold_storage.projections.batch_writer import write_projections
from runfold_storage.projections.row_store import delete_rows, read_rows
from runfold_storage.records.rows import Batch
from runfold_storage.rollups.deltas import RollupDeltas, add_run_with_nodes
from runfold_storage.rollups.min_max import MinMaxCache
from runfold_storage.rollups.shard_lock import lock_shard
from runfold_storage.rollups.store import drop_empty

ListKey = tuple[datetime, UUID]
"""The position of a run in lists: (time of its first event, key)."""


class DeletionLimits(Struct, frozen=True):
    """The sizes of the steps in which runs are deleted."""

    page_runs: int = 10_000
    """Runs that are read at a time."""
    purged_events: int = 2_000
    """The most events that one transaction deletes."""
    least_rows: int = throttle.LEAST
    most_rows: int = throttle.MOST
    """Rows whose deletion locks a shard once."""


DEFAULT_LIMITS: Final = DeletionLimits()


class Deletion(Struct, frozen=True):
    """Which runs to delete: those of a filter that existed at the time of the request.

    `ended_before`: only runs that ended before; without an end, their last sign of life counts.
    """

    filter: RunFilter
    ended_before: datetime | None = None

    def conditions(self) -> str:
        """Return SQL conditions on the runs `r`; their parameters are those of `parameters`."""
        found = self.filter.conditions("r")
        if self.ended_before is not None:
            found += [
                "coalesce(r.finished_at, r.last_event_at) < %(ended_before)s",
                # Implied, since the first event of a run is never later than its last.
                "r.created_at < %(ended_before)s",
            ]
        return " AND ".join(found) or "true"

    def parameters(self, **more: Any) -> dict[str, Any]:
        """Return the parameters of the conditions, and more."""
        return self.filter.parameters() | {"ended_before": self.ended_before} | more


def count_runs(connection: psycopg.Connection, deletion: Deletion, most: int) -> int:
    """Count the runs that match, at most `most`."""
    matches = f"SELECT r.run FROM runs AS r WHERE {deletion.conditions()} LIMIT %(most)s"
    statement = f"SELECT count(*) FROM ({matches}) AS matches"
    return int(scalar(connection, statement, deletion.parameters(most=most)))


def newest_key(connection: psycopg.Connection, deletion: Deletion) -> ListKey | None:
    """Return the newest run that matches: runs before it in the list came after the request."""
    row: ListKey | None = connection.execute(
        f"""
        SELECT r.created_at, r.run FROM runs AS r WHERE {deletion.conditions()}
        ORDER BY r.created_at DESC, r.run DESC LIMIT 1
        """,
        deletion.parameters(),
    ).fetchone()
    return row


def delete_run(connection: psycopg.Connection, run: str) -> bool:
    """Delete one run; False if there is none. Requires `batch_writer.prepare_session`."""
    shards = count_shards(connection) if may_be_run(run) else 0
    if not shards:
        return False
    shard = shard_of(run, shards)
    gone = _delete_with_tombstones(connection, shard, [run_key(run)], Deletion(RunFilter()))
    purge(connection, shard, gone)
    return bool(gone)


def add_archived_tombstone(connection: psycopg.Connection, run: str) -> bool:
    """Add a tombstone for a run that only the archive has; False if there are no shards."""
    shards = count_shards(connection)
    if not shards:
        return False
    shard = shard_of(run, shards)
    with lock_shard(connection, shard) as held:
        connection.execute(
            """
            INSERT INTO tombstones (shard, run) VALUES (%s, %s)
            ON CONFLICT (shard, run) DO UPDATE SET is_expiry = false, deleted_at = now()
            """,
            (shard, run_key(run)),
        )
        held.bump_generation([run_key(run)], [run])
    return True


def delete_runs(
    connection: psycopg.Connection,
    deletion: Deletion,
    *,
    up_to: ListKey | None = None,
    after: ListKey | None = None,
    on_progress: Callable[[int, ListKey | None], None] = lambda _, __: None,
    stop: threading.Event | None = None,
    limits: DeletionLimits = DEFAULT_LIMITS,
) -> int:
    """Delete the runs that match, from `up_to` (by default the newest) to the oldest.

    After each step `on_progress` gets the number of runs that it deleted, and the `after` with
    which the rest can be deleted. Raises `JobInterrupted` after the step in which `stop` is set.
    Requires `batch_writer.prepare_session`.
    """
    stop = stop or threading.Event()
    pace = ShardThrottle(connection, stop, least=limits.least_rows, most=limits.most_rows)
    first = up_to or newest_key(connection, deletion)
    deleted = 0
    min_max = MinMaxCache()
    while first is not None:
        page = _read_page(connection, deletion, first, after, limits.page_runs)
        for shard, its_runs in _by_shard(page):
            for keys in pace.portions(its_runs):
                with pace.holding():
                    gone = _delete_with_tombstones(connection, shard, keys, deletion, min_max)
                with pace.working():
                    purge(connection, shard, gone, limits.purged_events)
                deleted += len(gone)
                on_progress(len(gone), after)
                pace.rest()
                if stop.is_set():
                    raise JobInterrupted
        if page:
            after = (page[-1].created_at, page[-1].run)
            on_progress(0, after)
        if len(page) < limits.page_runs:
            break
    purge_left(connection)
    return deleted


def _by_shard(page: Sequence[Any]) -> Iterator[tuple[int, list[tuple[UUID, int]]]]:
    """Yield (key, number of rows) by shard; runs that share rollups are adjacent."""
    by_shard: dict[int, list[Any]] = defaultdict(list)
    for row in page:
        by_shard[row.shard].append(row)
    for shard, rows in by_shard.items():
        rows.sort(key=lambda row: (row.project, row.workflow, row.created_at))
        yield shard, [(row.run, 1 + row.nodes_total) for row in rows]


def purge(
    connection: psycopg.Connection,
    shard: int,
    keys: Sequence[UUID],
    most_events: int = DEFAULT_LIMITS.purged_events,
) -> None:
    """Delete the events of these runs, which have tombstones, so many in a transaction."""
    if keys:
        counted: list[tuple[UUID, int]] = connection.execute(
            """
            SELECT run, count(*) FROM events
            WHERE shard = %s AND run = ANY(%s::uuid[]) GROUP BY run ORDER BY run
            """,
            (shard, list(keys)),
        ).fetchall()
        events = dict(counted)
        for portion in portions(counted, lambda: most_events):
            if events[portion[0]] > most_events:  # the portion is one run
                while _purge_some(connection, shard, portion[0], most_events):
                    pass
            connection.execute(
                "DELETE FROM events WHERE shard = %s AND run = ANY(%s::uuid[])", (shard, portion)
            )
        connection.execute(
            """
            UPDATE tombstones SET events_left = false
            WHERE shard = %s AND run = ANY(%s::uuid[]) AND events_left
            """,
            (shard, list(keys)),
        )


def purge_left(connection: psycopg.Connection, limit: int = 1000) -> int:
    """Delete the events of runs whose deletion was interrupted; return the number of runs."""
    left: dict[int, list[UUID]] = defaultdict(list)
    for shard, run in connection.execute(
        "SELECT shard, run FROM tombstones WHERE events_left ORDER BY shard, run LIMIT %s", (limit,)
    ):
        left[shard].append(run)
    for shard, keys in left.items():
        purge(connection, shard, keys)
    return sum(map(len, left.values()))


def _read_page(
    connection: psycopg.Connection,
    deletion: Deletion,
    first: ListKey,
    after: ListKey | None,
    limit: int,
) -> list[Any]:
    at, run = after or first
    statement = f"""
        SELECT r.shard, r.run, r.created_at, r.nodes_total, r.project, r.workflow FROM runs AS r
        WHERE {deletion.conditions()}
          AND (r.created_at, r.run) {"<=" if after is None else "<"} (%(at)s, %(run)s)
        ORDER BY r.created_at DESC, r.run DESC LIMIT %(limit)s
    """
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        parameters = deletion.parameters(at=at, run=run, limit=limit)
        return cursor.execute(statement, parameters).fetchall()


def _delete_with_tombstones(
    connection: psycopg.Connection,
    shard: int,
    keys: Sequence[UUID],
    deletion: Deletion,
    min_max: MinMaxCache | None = None,
) -> list[UUID]:
    """Delete rows and statistics of the runs that still match, and add tombstones."""
    statement = f"""
        SELECT r.run, r.change_seq FROM runs AS r
        WHERE r.shard = %(shard)s AND r.run = ANY(%(keys)s) AND {deletion.conditions()}
    """
    parameters = deletion.parameters(shard=shard, keys=list(keys))
    # Read before locking, so that the fold waits only while changed runs are read again.
    seen: dict[UUID, int] = dict(connection.execute(statement, parameters).fetchall())
    stored = read_rows(connection, shard, [run.bytes for run in seen])
    with lock_shard(connection, shard) as held:
        meant: dict[UUID, int] = dict(connection.execute(statement, parameters).fetchall())
        if not meant:
            return []
        changed = [run.bytes for run, change_seq in meant.items() if seen.get(run) != change_seq]
        if changed:
            stored |= read_rows(connection, shard, changed)
        gone = [run.bytes for run in meant]
        stats: RollupDeltas = {}
        for key in gone:
            add_run_with_nodes(stats, stored[key].row, stored[key].nodes.values(), -1)
        connection.execute(
            """
            INSERT INTO tombstones (shard, run, events_left)
            SELECT %s, run, true FROM unnest(%s::uuid[]) AS gone (run)
            ON CONFLICT (shard, run) DO UPDATE SET events_left = true, is_expiry = false
            """,
            (shard, list(meant)),
        )
        deleted = delete_rows(connection, shard, gone)
        write_projections(connection, Batch(advances=[], stats=stats), min_max)
        drop_empty(connection, stats)
        held.bump_generation(*zip(*deleted, strict=True))
        crash_point("before_deletion_commit")
    crash_point("after_deletion_commit")
    return list(meant)


def _purge_some(connection: psycopg.Connection, shard: int, run: UUID, most: int) -> int:
    cursor = connection.execute(
        """
        DELETE FROM events WHERE shard = %(shard)s AND run = %(run)s AND id < (
            SELECT id FROM events WHERE shard = %(shard)s AND run = %(run)s
            ORDER BY id LIMIT 1 OFFSET %(most)s
        )
        """,
        {"shard": shard, "run": run, "most": most},
    )
    return cursor.rowcount

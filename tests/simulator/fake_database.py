"""PostgreSQL as the worker uses it: tables in memory, transactions, leases, failing connections.

Two writers of one shard take turns in reality, since the first holds the row lock; here a
transaction is not overtaken between its first statement and its end.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol, Self

import psycopg

from fake_tables import FakeTables
from oracle import add_up
from runfold.protocol.ids import is_own_id
from runfold_storage.checkpoints.change_log import EXTERNAL
from runfold_storage.checkpoints.leases import LeaseState
from runfold_storage.checkpoints.positions import Position, external_changes
from runfold_storage.errors import PositionMoved
from runfold_storage.ledger.events import StoredEvent
from runfold_storage.records.rows import Batch
from runfold_workers.fold.run_cache import RunRef
from runfold_workers.shards.ownership import TTL_S

from .processes import Process, ProcessContext

POISON = b'"poison"'


class DatabaseContext(ProcessContext, Protocol):
    """What PostgreSQL sees of the world."""

    database: "FakeDatabase"
    now_us: int


class FakeDatabase:
    """The tables and the leases. `sharing`: how leases are given out."""

    def __init__(self, shards: int, sharing: str) -> None:
        self.tables = FakeTables(shards)
        self.sharing = sharing
        self.leases: dict[int, tuple[str, int]] = {}
        self.changes: dict[int, list[tuple[int, bytes]]] = {}
        """Rows of the feed, of changes behind the fold."""

    def delete(self, ref: RunRef) -> None:
        """What a person's deletion of a run does: rows and statistics go, a tombstone stays."""
        tables = self.tables
        tables.tombstones.add(ref)
        tables.ledger.pop(ref, None)
        del tables.runs[ref]
        tables.nodes = {key: node for key, node in tables.nodes.items() if key[:2] != ref}
        tables.stats = add_up(tables.runs, tables.nodes)
        self.change_behind(ref[0], [ref[1]])

    def change_behind(self, shard: int, runs: Sequence[bytes] = ()) -> None:
        """What everything does that changes runs behind the fold; without runs it does not say."""
        was = self.tables.positions[shard]
        self.tables.positions[shard] = was._replace(
            generation=was.generation + 1, change_seq=was.change_seq + len(runs)
        )
        if runs:
            entries = b"".join(EXTERNAL + run for run in runs)
            self.changes.setdefault(shard, []).append((was.change_seq + len(runs), entries))


class FakeConnection:
    """In psycopg's words, and in those of the functions that `patching` puts in place of SQL."""

    def __init__(self, world: DatabaseContext, process: Process) -> None:
        self._world = world
        self._process = process
        self._pending: Batch | None = None
        self._is_open = False
        self.broken = False

    def count_shards(self) -> int:
        self._call()
        return len(self._world.database.tables.positions)

    def load_positions(self, shards: Sequence[int]) -> dict[int, Position]:
        self._call()
        return {shard: self._world.database.tables.positions[shard] for shard in sorted(shards)}

    def lock_positions(self, shards: Iterable[int]) -> dict[int, Position]:
        """Until the transaction ends no other process acts: it would wait for the row locks."""
        self._call()
        self._process.holds_lock = True
        return {shard: self._world.database.tables.positions[shard] for shard in sorted(shards)}

    def load_external_changes(
        self, known: Mapping[int, Position], found: Mapping[int, Position]
    ) -> dict[int, set[bytes] | None]:
        self._call()
        changes = self._world.database.changes
        return {
            shard: external_changes(
                [row for row in changes.get(shard, ()) if row[0] > known[shard].change_seq],
                known[shard],
                position,
            )
            for shard, position in found.items()
        }

    def newest_runs(self, shards: Sequence[int]) -> dict[int, bytes]:
        self._call()
        tables = self._world.database.tables
        known = [*tables.runs, *tables.tombstones]
        return {
            shard: max(
                (key for of, key in known if of == shard and not is_own_id(key)),
                default=bytes(16),
            )
            for shard in sorted(shards)
        }

    def load_events(self, refs: Sequence[RunRef]) -> Iterator[StoredEvent]:
        """Only when asked for the first of them, as SQL is sent by a generator."""
        self._call()
        events = list(self._world.database.tables.load(refs).events)
        for stored in events:
            yield stored._replace(body=b"") if stored.type == "logged" else stored

    def load_tombstones(self, refs: Sequence[RunRef]) -> set[RunRef]:
        self._call()
        return self._world.database.tables.tombstones & set(refs)

    def ensure_weeks(self) -> None:
        self._call()

    def prepare_writing(self) -> None:
        self._call()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is kept open."""

    def close(self) -> None:
        self.broken = True

    def raise_incident(self) -> None:
        self._call()

    def renew_leases(self, owner: str) -> LeaseState:
        """Leases, and at times one too many."""
        self._call()
        shards = self._take_leases(owner, int(TTL_S * 1e6))
        surplus = self._world.faults.occurs_with(0.1) and len(shards) > 0
        return LeaseState(shards, len(shards) - surplus, None)

    def give_up(self, owner: str, shards: Iterable[int]) -> None:
        self._call()
        leases = self._world.database.leases
        for shard in [shard for shard in shards if leases.get(shard, ("",))[0] == owner]:
            del leases[shard]

    def leave(self, owner: str) -> None:
        self.give_up(owner, list(self._world.database.leases))

    def _take_leases(self, owner: str, ttl_us: int) -> list[int]:
        database, now_us = self._world.database, self._world.now_us
        shards = list(database.tables.positions)
        faults = self._world.faults
        if database.sharing == "none" or (database.sharing == "random" and faults.calm):
            return shards
        if database.sharing == "random":
            return [shard for shard in shards if faults.rng.random() < 0.6]
        for shard in shards:
            holder, expires_us = database.leases.get(shard, (owner, 0))
            if holder == owner or expires_us < now_us:
                database.leases[shard] = (owner, now_us + ttl_us)
        return [shard for shard in shards if database.leases[shard][0] == owner]

    @contextmanager
    def transaction(self, force_rollback: bool = False) -> Iterator[None]:
        if self._is_open:  # a part of the one that is open
            yield
            return
        self._call()
        self._pending, self._is_open = None, True
        try:
            yield
            if not force_rollback:
                self._commit()
        finally:
            self._pending, self._is_open, self._process.holds_lock = None, False, False

    def write_batch(self, batch: Batch) -> None:
        """All statements of a batch: those that read or compare do, the rest waits for COMMIT.

        Outside of a transaction it is one by itself.
        """
        if not self._is_open:
            with self.transaction():
                self.write_batch(batch)
            return
        positions = self._world.database.tables.positions
        for step in sorted(batch.advances):
            now = positions[step.shard]
            if (now.position, now.generation) != (step.expected, step.generation):
                raise PositionMoved(step.shard, step.expected)
        if any(POISON in body for *_, body in batch.events):
            raise psycopg.errors.CheckViolation("poison")
        self._process.crash_if_due()
        if self._world.faults.occurs("database_fails"):
            raise psycopg.errors.DeadlockDetected("deadlock detected")
        self._pending = batch

    def _commit(self) -> None:
        self._process.crash_if_due()
        fails = self._world.faults.occurs("commit_fails")
        if self._pending is not None and not (fails and self._world.faults.rng.random() < 0.5):
            self._world.database.tables.apply(self._pending)
        if fails:
            self._break()
        self._process.crash_if_due()

    def _call(self) -> None:
        if self.broken:
            raise psycopg.OperationalError("the connection is closed")
        self._process.switch()
        if self._world.faults.occurs("database_fails"):
            self._break()

    def _break(self) -> None:
        self.broken = True
        raise psycopg.OperationalError("server closed the connection unexpectedly")


def snapshot(batch: Batch) -> Batch:
    """A batch as it is now: the pipeline empties its list of events."""
    return replace(
        batch,
        advances=list(batch.advances),
        events=list(batch.events),
        new_runs=list(batch.new_runs),
        changed_runs=list(batch.changed_runs),
    )


def with_numbers_of(encoded: Batch, batch: Batch) -> Batch:
    """A snapshot whose changes are numbered as those of the batch are now."""
    return replace(
        encoded,
        advances=list(batch.advances),
        new_runs=list(batch.new_runs),
        changed_runs=list(batch.changed_runs),
    )

"""Checkpoints on PostgreSQL: who may wait for whom, and what moves them apart from batches."""

import psycopg
import pytest

from frame_delivery import SHARDS
from runfold_storage.checkpoints.positions import ensure_shards, load_positions
from runfold_storage.postgres.connections import connect
from runfold_storage.projections import batch_writer

pytestmark = pytest.mark.usefixtures("deployment")


def test_starting_does_not_wait_for_a_batch_that_moves_positions(
    database: psycopg.Connection, migrated_url: str
) -> None:
    """Else a worker that is frozen in its transaction would keep all others from starting."""
    with connect(migrated_url) as busy:
        busy.execute("UPDATE positions SET consumed = 1")
        database.execute("SET lock_timeout = '2s'")
        ensure_shards(database, SHARDS + 1)
    assert sorted(load_positions(database)) == list(range(SHARDS + 1))


def test_a_frozen_worker_does_not_hold_its_locks_for_ever(
    database: psycopg.Connection, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends its session while it does nothing in the middle of a batch."""
    monkeypatch.setitem(batch_writer._TIMEOUTS, "idle_in_transaction_session_timeout", "300ms")
    with connect(migrated_url) as frozen:
        batch_writer.prepare_session(frozen)
        frozen.execute("UPDATE positions SET consumed = 1")
        database.execute("SET lock_timeout = '30s'")
        database.execute("UPDATE positions SET consumed = 2")
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            frozen.execute("SELECT 1")
    assert {position.consumed for position in load_positions(database).values()} == {2}

"""Folds runs again from the ledger, as a worker does that has not cached them."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import psycopg

from runfold.errors import BrokenEvent
from runfold.protocol.ids import is_own_id
from runfold_storage.ledger.events import (
    load_deleted,
    load_expired,
    load_external_ids,
    load_for_fold,
)
from runfold_storage.projections.row_store import NOTHING_STORED, RunRows
from runfold_workers.fold.projection import node_row, run_row
from runfold_workers.fold.run_cache import apply_stored
from runfold_workers.fold.run_state import RunState


class RefoldResult(NamedTuple):
    """What the tables should have of a run; `unreadable` names a broken event of the ledger."""

    rows: RunRows
    events: int = 0
    unreadable: str | None = None
    is_aged: bool = False
    """Whether retention has deleted events, so that the tables cannot be checked."""


def refold(
    connection: psycopg.Connection, shard: int, keys: Sequence[bytes]
) -> dict[bytes, RefoldResult]:
    """Return the rows that follow from the ledger for each key; deleted runs have none."""
    refs = [(shard, key) for key in keys]
    names = load_external_ids(connection, shard, [key for key in keys if is_own_id(key)])
    deleted, aged = load_deleted(connection, refs), load_expired(connection, refs)
    states = {}
    for key in keys:
        external_id = names.get(key)
        states[key] = RunState(shard, key, external_id or str(UUID(bytes=key)), external_id)
    counts = dict.fromkeys(keys, 0)
    unreadable: dict[bytes, str] = {}
    for stored in load_for_fold(connection, refs):
        counts[stored.run] += 1
        try:
            apply_stored(states[stored.run], stored)
        except BrokenEvent as error:
            unreadable[stored.run] = f"event {stored.id}: {error}"
    return {
        key: RefoldResult(
            NOTHING_STORED if (shard, key) in deleted else _rows_of(state),
            counts[key],
            unreadable.get(key),
            (shard, key) in aged and (shard, key) not in deleted,
        )
        for key, state in states.items()
    }


def _rows_of(state: RunState) -> RunRows:
    """Return all rows of a run that was never settled before."""
    changed = state.take_changed()  # updates the counts of nodes too
    nodes = {(each.name, each.number): node_row(state, each) for each in changed}
    return RunRows(run_row(state), nodes)

"""Rollups: statistics per hour and day, maintained by deltas and checked against the rows.

When a row of a run or node changes, its rollup gets the new values minus the old ones. Small
batches append their deltas (`pending_deltas`), which a worker merges within a second; readers add
what is pending. Large batches, removed durations and every other writer merge what is pending of
their shards first, and then change the rollups themselves (`store`). Days change with their hours
in the same transaction. A minimum cannot be subtracted from, so it is looked up again (`min_max`).

Invariant: a rollup is always what it was at some moment, never negative. All changes are part of
the transaction of the rows that they count, so a process that dies halfway leaves no trace. Hours
with expired rows (`expired_hours`) cannot be recomputed, and are left as they are.
"""

"""Rollups: statistics per hour and day, maintained by deltas and checked against the rows.

When a row of a run or node changes, its rollup gets the new values minus the old ones. Small
batches append their deltas, which a worker merges within a second; all other writers merge what is
pending of their shards first, and then change the rollups themselves (`store`). A minimum cannot be
subtracted from, so it is looked up again (`min_max`).

Invariant: a rollup is always what it was at some moment, never negative. All changes are part of
the transaction of the rows that they count. Hours with expired rows (`expired_hours`) cannot be
recomputed, and are left as they are.
"""

"""Verify, rebuild and repair: compare the tables with the ledger, and correct them.

`refold` folds runs again from the ledger, `diff` describes differences, `verify` finds them without
locks (one snapshot per chunk), `correct` fixes rows and statistics under the lock of their shard.
`rebuild` does this for a `selection` of runs as a job, `repair` for what `verify` found.

Statistics are compared with sums over the rows, in which a wrong run counts as it is refolded, so
that one wrong row is not also a wrong statistic. `last_event_at` may be later than the ledger says,
because the ledger keeps no heartbeats.
"""

"""Deletion on request, and expiry by age: payloads, runs, statistics, weeks of the ledger.

Deletion removes a run from the statistics, too; expiry leaves its statistics. Three marks record
what expired: `runs.payloads_expired_at` (the run's events are deleted or being deleted; it accepts
no more events), a tombstone with `is_expiry` (its row is deleted, too), and `expired_hours` (an
hour of a project whose statistics cannot be recomputed, so `verify` and `rebuild` skip it).

Every step marks first, in a transaction that locks the shard and raises its generation, and deletes
events afterwards in short transactions. If a process dies halfway, the marks remain, and the next
run finds what is left: tombstones with `events_left`, runs marked 'infinity', detached partitions.
"""

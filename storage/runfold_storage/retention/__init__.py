"""Deletion on request, and expiry by age: payloads, runs, statistics, weeks of the ledger.

Deletion removes a run from the statistics, too; expiry leaves its statistics. Three marks record
what expired: `runs.payloads_expired_at` ('infinity' while the run's events are being deleted), a
tombstone with `is_expiry` (its row is deleted, too), and `expired_hours` (an hour of a project
whose statistics cannot be recomputed, so `verify` and `rebuild` skip it).

Every step marks first, in a transaction that locks the shard and raises its generation, and deletes
afterwards in short transactions. If a process dies halfway, the next run finds the marks.
"""

"""Which worker folds which shard, and what workers check beside the fold.

`ownership` holds leases: each worker has about N/W shards. A thread of its own renews them each
second, so a long batch loses none. A new worker is seen within a second; workers with more than
their share commit what they have read and give the rest up. A worker that stops releases all its
leases; those of a dead one expire after 3 s. A worker that was frozen in a batch keeps its row
locks until the server ends its session, after 10 s (14 s if the machine is gone); when it wakes up,
the compare-and-set of the positions refuses its batch. Surplus workers stand by.

`monitor` compares streams with checkpoints once a second and measures the lag. It changes no
checkpoint: a shard that looks wrong is a suspect, which `recovery` examines in the thread that
folds when no batch of the shard is in flight. Frames that were trimmed unread, or a stream that was
flushed or restored, become incidents that are counted once.

`lost_runs` finds runs without a sign of life. The worker of shard 0 does this, deletes old entries
of the change feed and creates partitions ahead of time. `rollup_merger` merges pending deltas into
the rollups of all shards.

Each thread has connections of its own and retries after errors. Whatever it had begun when the
process died is found and done again by the next owner.
"""

"""Which worker folds which shard, and what workers check beside the fold: lag, lost runs, recovery.

`ownership` holds leases: each worker has about N/W shards. A new worker is seen within a second;
workers with more than their share commit what they have read and give the rest up. The leases of a
dead worker expire after 3 s. A worker that was frozen in a batch keeps its row locks until the
server ends its session, after 10 s (14 s if the machine is gone); when it wakes up, the
compare-and-set of the positions refuses its batch.

`monitor` compares streams with checkpoints once a second and measures the lag. It changes no
checkpoint: a shard that looks wrong is a suspect, which `recovery` examines in the thread that
folds when no batch of the shard is in flight. Each thread has connections of its own.
"""

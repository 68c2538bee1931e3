"""From frames to commits: read, fold, write, publish.

`worker` holds the connections, notifies subscribers and trims the streams, `loop` takes the steps,
`stream_reader` reads frames, `pipeline` folds the next batch while `committer` writes the last one.

Invariants: a batch and the positions of its shards are one transaction, and positions move by
compare-and-set, so two workers on one shard cannot both commit. Duplicates are dropped in memory;
the primary key of the ledger is the backstop. Only a committed frame is trimmed.

Failures: while Redis or PostgreSQL is away, the worker retries with backoff, without limit, from
the committed positions. If the reply to COMMIT is lost, the positions say whether the batch was
committed. A worker that dies before COMMIT leaves nothing; after it, the next owner trims the
stream, and subscribers poll.
"""

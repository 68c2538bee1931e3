"""From frames to commits: read, fold, write, publish.

`worker` holds the connections, `loop` takes the steps, `stream_reader` reads frames, `pipeline`
folds the next batch while `committer` writes the last one, `publisher` notifies subscribers and
trims the stream.

Invariants:
- A batch and the positions of its shards are one transaction (`committer`). Positions move by
  compare-and-set, so two workers on one shard cannot both commit.
- Duplicates are dropped in memory (`runfold_workers.fold.dedup`). The primary key of the ledger is
  the backstop: `DuplicateInLedger` makes `Committer.recommit` read the ledger and fold again.
- Only a committed frame is trimmed.

Failures:
- Redis or PostgreSQL is away: `Worker._run` logs it, waits with backoff (at most 5 s) and starts
  over from the committed positions, without limit. Frames stay in the stream.
- PostgreSQL refuses the data: `Committer.recommit` splits the batch; `refused_event` finds the
  event, which becomes a dead letter in the transaction of its neighbours.
- Runs were changed behind the fold: the batch is folded again under the lock of its shards.
- The reply to COMMIT is lost: the positions, read again, say whether the batch was committed.
- The worker dies before COMMIT: nothing happened. After it: the next owner trims the stream, and
  subscribers poll.
"""

"""The fold: a pure function from events to rows. No module here does I/O or reads a clock.

The way of a frame: `frame_decoder` takes it apart into events (or dead letters), `event_facts`
reads what the fold needs of each body, `dedup` drops duplicates, `reducers` apply an event to the
`run_state`, `projection` derives the rows, and `batch_builder` collects what changed.

The projection of a run is `fold(events of the run, sorted by (at, id))`. `run_state` is the same
for every order of the same events, because each fact is a slot that an event wins by a rule on
`(at, id)` alone (`reducers`). A run's status follows from its slots: `projection.run_row`. A run is
`lost` while it has no end and its `lost` event is not older than its last sign of life:
`RunState.is_lost`. `runfold_workers.shards.lost_runs` writes these events.

`run_cache` keeps the states of recent runs, at most `MAX_CACHE_BYTES` by the estimate of
`state_size`. What a batch has touched that is not committed is never evicted, because the ledger
does not have it. A run that is not cached is folded from the ledger, unless its key is later than
every key that the tables had when the shard was taken and every key evicted since: UUIDv7 keys are
ordered by time, so no worker has seen that run.

Nothing here survives a process. A batch that was not committed is dropped (`BatchBuilder.rewind`)
and folded again.
"""

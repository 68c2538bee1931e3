"""The fold: a pure function from events to rows. No module here does I/O or reads a clock.

The way of a frame: `frame_decoder` takes it apart into events (or dead letters), `event_facts`
reads what the fold needs of each body, `reducers` apply an event to the `run_state`, `projection`
derives the rows, and `batch_builder` collects what changed.

The projection of a run is `fold(events of the run, sorted by (at, id))`. `run_state` is the same
for every order of the same events, because each fact is a slot that an event wins by a rule on
`(at, id)` alone. `run_cache` keeps the states of recent runs; it is a cache of the ledger, so
nothing here survives a process.
"""

"""The protocol: events, ids, frames and streams, as `producers/PROTOCOL.md` specifies them.

Producers write it, workers read it, and programs in other languages may do both: add to it, never
change it. An *event* is an envelope (`type run id at v`) and further fields; between producer and
ledger those stay encoded, as the *body* of an `Envelope`. A *frame* is one stream entry with events
of one shard, as readable JSON or packed. A *shard* is chosen by a hash of the run id; the number of
shards is agreed on through Redis.

Invariant: every event that leaves `codec` or `frames` as read can be stored by PostgreSQL and read
by any JSON parser. Invalid events become `BrokenEvent`, invalid frames `BrokenFrame`, each with the
reason; neither affects its neighbours. Functions here keep no state and do no I/O, except for
connections and shards in `streams`.
"""

"""Live streams over server-sent events: one reader of changes, many subscribers.

A `Broker` per process reads the change feed. It hands each change to the `Topic` of every filter,
and reports changed runs to the `RunTopics`. A list stream is in one of three states: catching up
(its subscriber queues changes while missed changes or a snapshot are read), streaming, or in need
of a snapshot (it was too slow, or the broker lost its cursor).

Invariants: the cursor sent with an event covers everything up to it, so a client that reconnects
with it, to any process, misses nothing and receives nothing twice. Every queue is bounded in bytes;
a full one is dropped and replaced by a snapshot.

When a worker dies between its commit and its notification, the next poll finds the changes. Without
Redis, changes arrive up to `POLL_S` later; without PostgreSQL, streams are silent until it is back.
"""

"""Delivery: from the thread that records an event to the stream of its shard.

An event is in exactly one of these states:

- *buffered*: in memory, as an object. `Buffer.put` only appends; it waits when the buffer is full.
- *packed*: in memory, in a `PendingFrame` in the queue of its shard.
- *spooled*: in a frame on disk (`runfold.spool`); the frame keeps its place in the queue.
- *sent*: Redis has acknowledged its XADD. Sending may repeat an event, with the same id.
- *dropped*: neither memory nor disk had room, or the event is not valid. It is counted.

Threads: any thread calls `put`, `flush` and `close`. One native daemon thread, the flusher, packs,
sends and spools; it starts with the first event. Where no thread can start, `flush` does its work.

Locks: `put` takes none. `Dispatcher` has one lock for queues, spool and connection. It is released
only while a call waits for Redis, so another thread can spool everything while the flusher hangs in
a connection. `Emitter._lock` guards the start of the flusher.

- *Fork*: the child starts with an empty buffer and its own flusher, connection and spool files.
- *Exit* (atexit): send for `exit_flush_s`, spool the rest, count what is lost. Later events are
  sent by the thread that records them.
- *Finalization*: all other threads are dead and may hold locks; the last one replaces those locks.
- *Sudden death*: buffered and packed events are lost; another process sends the spooled ones.
- *gevent*: the flusher stays a native thread; `flush` lets other greenlets run while it waits.
"""

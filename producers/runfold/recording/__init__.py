"""Recording: what a runner calls, turned into events.

`Recorder` makes handles (`Run`, `Node`), wraps functions (`decorators`), and takes single events
(`emit`) and finished executions (`record`). A handle goes from *made* to *started* to *ended*; the
first end counts. Payloads are read and encoded in the caller's thread, at the call.

`EventIds` counts the events of one run in this process. The process that made the run's id is
emitter 0; every other process, and every forked child, draws a random emitter.

A forked child that leaves a block of its parent ends nothing, and sends no heartbeats for it. In a
process that may end abruptly (a worker's child), the end of the outermost run waits until its
events are safe. A process that dies in the middle of a run leaves it without an end: workers mark
it as lost once its heartbeats are missing.
"""

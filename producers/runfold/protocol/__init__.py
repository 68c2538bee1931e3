"""The protocol: events, ids, frames and streams, as `producers/PROTOCOL.md` specifies them.

Programs in other languages read and write it, too: add to it, never change it.

Invariant: every event that leaves `codec` or `frames` as read can be stored by PostgreSQL and read
by any JSON parser. Invalid events become `BrokenEvent`, invalid frames `BrokenFrame`, each with the
reason; neither affects its neighbours. Only `streams` does I/O.
"""

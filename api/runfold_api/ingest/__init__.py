"""Ingest: from request bodies to Redis Streams.

A body is parsed and checked as a whole (`event_parser`, `executions`), then written
(`stream_writer`). One broken event refuses the whole request, so that a sender never has to find
out which part was accepted. Every event has an id before it is written, derived from its content if
the sender gave none; a repeated request therefore creates duplicates, which the fold drops.

If the process or Redis dies in the middle of a write, some frames may be in their streams. The
sender gets no 202 and sends the whole request again.
"""

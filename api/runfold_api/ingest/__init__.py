"""Ingest: from request bodies to Redis Streams.

One broken event refuses the whole request, so that a sender never has to find out which part was
accepted. Every event has an id before it is written, derived from its content if the sender gave
none. If a write fails halfway, the sender gets no 202 and repeats the request, which creates
duplicates that the fold drops.
"""

"""Producers, transport, workers and storage in one process, deterministic from a seed.

Real: the worker's loop, pipeline, committer, fold and run cache, and their use of leases; the
frames; the recorders. Simulated: Redis, PostgreSQL, time and random numbers. Every call that would
leave a process can crash it, fail, lose its reply, or let other processes act first. `world` runs a
history, `checks` says what must hold of it.
"""

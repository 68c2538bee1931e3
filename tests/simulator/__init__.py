"""Producers, transport, workers and storage in one process, deterministic from a seed.

What is real: the worker's loop, pipeline, committer, fold, memory and leases' use of them, the
frames, and the producers' lanes. What is simulated: Redis, PostgreSQL, time and random numbers. Every call
that would leave a process is a place where it can die, fail, lose its answer, or be overtaken by
others. `world` says how a history goes, `checks` what must hold of it.
"""

"""HTTP helpers: problems, query parameters, run ids in paths, reading one's own writes.

Invariant: every answer that is not a success is a problem that names the culprit and what is
allowed, and that reveals neither stacks nor server addresses.
"""

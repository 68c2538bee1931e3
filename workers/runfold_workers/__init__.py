"""The workers: `consumer` folds streams into PostgreSQL, `jobs` does background work.

`fold` is pure. `integrity` and `shards` stand on it, `retention` and `consumer` on those.
"""

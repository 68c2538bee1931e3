"""The workers: `consumer` folds streams into PostgreSQL, `jobs` does background work.

`fold` is pure; `consumer` and `integrity` use it. `consumer` also uses `shards`, `retention` uses
`integrity`, and `jobs` runs `retention` and `integrity` in the background.
"""

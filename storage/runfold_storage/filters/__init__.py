"""The filters of runs: their catalogue, their validation, and their meaning in SQL and in memory.

`catalogue.FILTERS` declares each filter once. `make_run_filter` checks the values that callers give
and returns a `RunFilter`, a frozen value in stored units. `RunFilter.conditions` is its meaning;
`match_of` agrees with it for rows that are not stored yet.
"""

"""The columns of a run's summary."""

from typing import Final

from runfold_storage.tables import runs

SUMMARY_COLUMNS: Final = [
    column
    for column in runs.c
    if column.name not in ("last_event_at", "change_seq", "payloads_expired_at")
    and (column.computed is None or column.name == "fingerprint")
]
"""What lists show, and all that filters compare."""

SUMMARY_NAMES: Final = tuple(column.name for column in SUMMARY_COLUMNS)

COLUMNS: Final = ", ".join(f'r."{name}"' for name in SUMMARY_NAMES)
"""The same as SQL over the runs `r`."""

RUNS_AT_KEYS: Final = """
    runs AS r
    JOIN unnest(CAST(%(shards)s AS smallint[]), CAST(%(keys)s AS uuid[])) AS keys (shard, run)
    ON r.shard = keys.shard AND r.run = keys.run
"""
"""The runs at the keys in the parameters `shards` and `keys`, lists of equal length."""

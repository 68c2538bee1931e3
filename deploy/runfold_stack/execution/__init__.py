"""`runfold exec`: run a command unchanged and record its output and its end as a run.

Invariants: the command's streams, signals, terminal and exit code are the same as without Runfold,
and neither a slow terminal nor an unavailable Redis delays it. Signals are forwarded exactly once.
Output is recorded as UTF-8 texts of at most 16 KiB, cut at lines. Exit code 0 is `completed`; death
by a forwarded SIGINT, SIGTERM, SIGHUP or SIGQUIT is `cancelled`; everything else is `failed`.

Processes that the command leaves in the background are read until they have been silent for half a
second. Events that Redis does not accept are spooled to disk, and the next recording program sends
them. If this process is killed, the command's pipes close, and the run, without a further sign of
life, becomes `lost`.
"""

"""`runfold exec`: run a command unchanged and record its output and its end as a run.

Invariants: the command's streams, signals, terminal and exit code are the same as without Runfold,
and neither a slow terminal nor an unavailable Redis delays it. Signals are forwarded exactly once.
Exit code 0 is `completed`; death by a forwarded SIGINT, SIGTERM, SIGHUP or SIGQUIT is `cancelled`;
everything else is `failed`. If this process is killed, the command's pipes close, and the run,
without a further sign of life, becomes `lost`.
"""

"""The checks of `runfold doctor`.

A check returns findings with a level (`ok`, `warn`, `fail`) and, unless it is `ok`, a remedy.
Checks change nothing; only `--acknowledge` marks incidents as acknowledged after reporting them. A
check whose server is unavailable is skipped, so that the others still run. `doctor` can be killed
at any time.
"""

"""The processes of `runfold up`: children, restarts, ports, stop signals, the lock.

A stop request counts: the first one stops in order, the second one forces the end. `up` holds an
exclusive lock on its data directory while it lives. If `up` is killed, the kernel drops the lock
and sends SIGTERM to its children (on Linux); the servers keep running.
"""

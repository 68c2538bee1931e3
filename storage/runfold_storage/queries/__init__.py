"""The reads behind `History`: lists of runs, one run, statistics.

Every function takes a connection in a read-only REPEATABLE READ transaction, so that the statements
of one answer see one snapshot. Answers are bounded in size and time. Nothing is written; a reader
that dies leaves nothing behind.
"""

"""The change feed: which runs changed, in the order of commits, for live readers.

`checkpoints.change_log` is the truth, written with each batch; `reader` reads it from a cursor.
`notifications` carries the same changes, with the rows, through Redis, so that readers need not
query PostgreSQL. Notifications may be lost: a reader detects a gap in the numbers and reads the log
instead. A reader that stops and returns resumes from its cursor, or starts from a snapshot.
"""

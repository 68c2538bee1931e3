"""The daily retention job, and restoring from the archive.

`job` goes through the policies: payloads, then rows, then statistics. Weeks of the ledger that are
due as a whole are detached and dropped. `steps` deletes in short transactions that each lock one
shard, after writing the same to the archive, if there is one.

Invariant: nothing is deleted before its archive file is written, read back and renamed. If the
archive fails, the step's data stays, and the job fails with `ArchiveUnusable` and an incident.

After a crash the job's progress says where to resume, and what had begun is found by its traces:
marked runs, detached weeks, steps of the archive journal.
"""

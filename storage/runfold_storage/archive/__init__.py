"""The archive: Parquet files of expired data, in a folder or an object store.

Nothing is deleted from the tables before its file is complete. A step is first recorded in the
journal; its files are written without a name, read back, synced and then named; the step is marked
as written; then its data is deleted from the tables, and the step from the journal. If a process
dies halfway, the next run of retention undoes a step that is not written, and finishes one that is.
Names of files carry the step's token, so repeating a step leaves no duplicates. Only `purge`, which
removes deleted runs, changes files, so readers need no locks.

The modules need pyarrow, so they are imported only where an archive is set (`RUNFOLD_ARCHIVE`).
"""

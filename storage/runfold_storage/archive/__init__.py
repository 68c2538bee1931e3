"""The archive: Parquet files of expired data, in a folder or an object store.

Nothing is deleted from the tables before its file is complete (`journal`). Names of files carry
their step's token, so repeating a step leaves no duplicates. Only `purge`, which removes deleted
runs, changes files, so readers need no locks.

The modules need pyarrow, so they are imported only where an archive is set (`RUNFOLD_ARCHIVE`).
"""

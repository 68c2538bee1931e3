"""The archive: Parquet files of what retention takes away, in a folder or an object store.

Its modules need pyarrow, so they are imported only where an archive is set (`RUNFOLD_ARCHIVE`).
"""

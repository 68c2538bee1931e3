"""What the workers raise."""


class WorkerError(Exception):
    """Base of everything that `runfold_workers` raises on purpose."""

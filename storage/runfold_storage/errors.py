"""The errors of storage. Driver errors are translated where a caller can act on them."""


class StorageError(Exception):
    """Base class of the errors of `runfold_storage`."""


class DatabaseUnreachable(StorageError):
    """PostgreSQL did not answer; the message has the address and the driver's message."""


class SchemaOutdated(StorageError):
    """The database's schema is not the one of this code; the message names the remedy."""


class PositionMoved(StorageError):
    """A shard's checkpoint is not the one that this worker expected.

    Another worker folds the shard, or another process changed runs and raised the generation.
    """

    def __init__(self, shard: int, position: str) -> None:
        super().__init__(f"the checkpoint of shard {shard}, expected at {position}, has moved")
        self.shard = shard
        self.position = position


class PartitionMissing(StorageError):
    """The ledger has no partition for an event, and creating it failed; the message says why."""


class DuplicateInLedger(StorageError):
    """The ledger already holds an event of the batch; the worker's cache has to be loaded again."""


class ReadTooSlow(StorageError):
    """A read exceeded its time limit; the message says how to narrow it."""


class FoldBehind(StorageError):
    """The fold did not reach the position that a read waits for; the message names the shard."""


class BadParameter(StorageError, ValueError):
    """A parameter is invalid; the message names the parameter and what is allowed."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(f"{parameter}: {message}")
        self.parameter = parameter
        self.reason = message


class JobLocked(StorageError):
    """Another process runs this job; wait for it, or for the end of its session."""


class ArchiveUnusable(StorageError):
    """The archive cannot be written or read; the message has its address and the reason."""


class RestoreRefused(StorageError):
    """An archive cannot be restored into this database; the message has reason and remedy."""

"""What storage raises. Driver errors are translated where a caller can act on them."""


class StorageError(Exception):
    """Base of everything that `runfold_storage` raises on purpose."""


class DatabaseUnreachable(StorageError):
    """PostgreSQL did not answer; the message has its address and its own words."""


class SchemaOutdated(StorageError):
    """The database has another schema than this code; the message says what to run."""


class PositionMoved(StorageError):
    """A shard's checkpoint is not the one that this worker believed in.

    Another worker folds the shard; or, at the same position, runs were changed behind the fold.
    """

    def __init__(self, shard: int, position: str) -> None:
        super().__init__(
            f"the checkpoint of shard {shard}, believed to be at {position}, has moved"
        )
        self.shard = shard
        self.position = position


class PartitionMissing(StorageError):
    """The ledger has no partition for an event, and none can be made; PostgreSQL says why."""


class DuplicateInLedger(StorageError):
    """The ledger holds an event that memory took for new; memory has to be loaded again."""


class ReadTooSlow(StorageError):
    """A read took longer than it may; the message says how to ask for less."""


class FoldBehind(StorageError):
    """The fold did not come as far as a read was to wait for; the message says which shard."""


class BadParameter(StorageError, ValueError):
    """A read was asked for something that cannot be; names the parameter and what is allowed."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(f"{parameter}: {message}")
        self.parameter = parameter
        self.reason = message


class JobLocked(StorageError):
    """Another process works on this job; wait for it, or for the end of its session."""


class ArchiveUnusable(StorageError):
    """The archive cannot be written or read; the message has its address and what is wrong."""


class RestoreRefused(StorageError):
    """An archive cannot be restored into this database; the message says why, and what to do."""

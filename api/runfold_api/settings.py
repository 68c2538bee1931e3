"""Settings of the API; only `main()` reads the environment."""

from msgspec import Struct

from runfold.protocol.time_limits import MAX_FUTURE_S
from runfold_storage.history import MAX_WAIT_S


class Settings(Struct, frozen=True, kw_only=True):
    """`shards`, if given, must equal the deployment's number of shards, which is in Redis."""

    redis_url: str
    database_url: str
    shards: int | None = None
    read_threads: int = 8
    """Number of concurrent reads; each has its own connection."""
    write_threads: int = 4
    """Number of concurrent writes; each has its own connection."""
    read_timeout_s: float = 15
    write_timeout_s: float = 5
    max_wait_s: float = MAX_WAIT_S
    """Maximum wait of a read for the position in `wait_for`."""
    archive_url: str | None = None
    """Folder or URL of the archive of expired data, from which archived runs are read."""
    delete_at_once: int = 1000
    """A request deletes at most this many runs itself; a job deletes more."""
    max_body_bytes: int = 16 * 2**20
    """Maximum size of a request's body; an event is limited to `MAX_EVENT_BYTES`."""
    redact_keys: tuple[str, ...] = ()
    """Additional keys whose values are masked in posted data."""
    max_future_s: float = MAX_FUTURE_S
    """Maximum distance of a posted time into the future."""
    max_lag_s: float = 10
    """Maximum wait of an event for the fold before `/readyz` reports `behind`."""
    shutdown_s: float = 10
    """Time that open requests have to end after the signal to stop."""

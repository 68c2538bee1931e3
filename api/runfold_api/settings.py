"""What the API is started with; only `main()` reads the environment."""

from typing import Final

from msgspec import Struct

from runfold.protocol.time_limits import MAX_FUTURE_S

MIB: Final = 1024 * 1024


class Settings(Struct, frozen=True, kw_only=True):
    """`shards` is only checked against the deployment's own number, which Redis knows."""

    redis_url: str
    database_url: str
    shards: int | None = None
    read_threads: int = 8
    """Reads at a time, each with a connection of its own."""
    write_threads: int = 4
    """Posts at a time, each with a connection of its own."""
    read_timeout_s: float = 15
    write_timeout_s: float = 5
    archive_url: str | None = None
    """Where retention puts what it takes away; runs that are there are shown, too."""
    delete_at_once: int = 1000
    """So many runs are deleted by a request itself; for more a job is made."""
    max_body_bytes: int = 16 * MIB
    """Of a request; a single event may have `MAX_EVENT_BYTES`."""
    redact_keys: tuple[str, ...] = ()
    """Further keys whose values are masked in what is posted."""
    max_future_s: float = MAX_FUTURE_S
    """How far ahead of now a time in what is posted may lie."""
    max_lag_s: float = 10
    """For how long an event may wait for the fold before `/readyz` says so."""
    shutdown_s: float = 10
    """How long open requests may take to end after the signal to stop."""

"""How the embedded PostgreSQL is tuned: a laptop with two cores and a few GB.

Written to `runfold.conf` in the data directory at every start, so that an
upgrade of Runfold brings its tuning along. Yours win: use ALTER SYSTEM, or the
end of `postgresql.conf`.
"""

from collections.abc import Mapping
from types import MappingProxyType

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        # Nothing over the network; the socket's folder is private (see `sockets`).
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        # A commit that was reported is on the disk.
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        # Memory.
        "shared_buffers": "256MB",
        "huge_pages": "try",
        "work_mem": "16MB",
        "maintenance_work_mem": "256MB",
        "effective_cache_size": "2GB",
        # Few, slow checkpoints: each one makes the next change of every page log it whole.
        "checkpoint_timeout": "15min",
        "max_wal_size": "4GB",
        "min_wal_size": "512MB",
        "wal_buffers": "16MB",
        # An SSD; short statements, for which compiling takes longer than running.
        "random_page_cost": "1.1",
        "jit": "off",
        # Times in the log and in SQL sessions are UTC, messages English, on every machine.
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
        "log_line_prefix": "%m [%p] %a ",
        "log_lock_waits": "on",
    }
)

# The first that the build knows; pglz is part of every build.
WAL_COMPRESSIONS = ("lz4", "zstd", "pglz")


def render(settings: Mapping[str, str]) -> str:
    """Return the text of a PostgreSQL configuration file."""
    head = "# Written by runfold at every start; use ALTER SYSTEM or postgresql.conf instead.\n"
    quoted = ((name, value.replace("'", "''")) for name, value in settings.items())
    return head + "".join(f"{name} = '{value}'\n" for name, value in quoted)

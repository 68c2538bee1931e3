"""What can go wrong with the local servers.

Every message names the culprit and says what to do about it.
"""

import re

# What a server writes when it gives up, and what a person can do then.
_REMEDIES = (
    (r"No space left on device", "free some disk space below the data directory, then start again"),
    (r"Disk quota exceeded", "raise the disk quota or choose another data directory"),
    (r"Read-only file system", "choose a data directory on a file system that can be written to"),
    (
        r"Permission denied|Operation not permitted",
        "the data directory must belong to whom the servers run as: chown it, or choose another",
    ),
    (
        r"Cannot allocate memory|could not map anonymous shared memory",
        "free some memory, or lower shared_buffers (ALTER SYSTEM or postgresql.conf)",
    ),
    (
        r"Can't handle RDB format version",
        "a newer server wrote this data: install that one, or choose another data directory",
    ),
    (
        r"Bad file format reading the append only file",
        "the append-only file is damaged: keep a copy, then run `redis-check-aof --fix` on it",
    ),
    (
        r"Address already in use",
        "another server listens there: stop it, or choose another data directory",
    ),
    (
        r"[Ee]rror while loading shared libraries",
        "this build does not fit the machine: install the servers with the system's packages",
    ),
)


class StackError(Exception):
    """A local server could not be found, started, reached or stopped."""


class ProgramNotFoundError(StackError):
    """No usable server program is on this machine."""


class PrivilegeError(StackError):
    """Root's privileges cannot be given up, or the folders do not allow it."""


class AlreadyRunningError(StackError):
    """Another process has started, or is starting, a server on the same data."""


class StartFailedError(StackError):
    """A server ended, or did not answer in time, instead of starting."""


def start_failure(what: str, output: str) -> StartFailedError:
    """Join what failed, the end of the server's own output and, if known, the remedy."""
    remedy = next((text for pattern, text in _REMEDIES if re.search(pattern, output)), None)
    lines = [what]
    if output.strip():
        lines += ["Its last words:", *(f"  {line}" for line in output.strip().splitlines()[-15:])]
    if remedy is not None:
        lines.append(f"What to do: {remedy}.")
    return StartFailedError("\n".join(lines))

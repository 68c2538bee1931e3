"""Errors of the local servers; every message names the culprit and the remedy."""

import re

# What a server logs when it gives up, and the remedy.
_REMEDIES = (
    (r"No space left on device", "free some disk space below the data directory, then start again"),
    (r"Disk quota exceeded", "raise the disk quota or choose another data directory"),
    (r"Read-only file system", "choose a data directory on a writable file system"),
    (
        r"Permission denied|Operation not permitted",
        "the data directory must belong to the servers' user: chown it, or choose another",
    ),
    (
        r"Cannot allocate memory|could not map anonymous shared memory",
        "free some memory, or lower shared_buffers (ALTER SYSTEM or postgresql.conf)",
    ),
    (
        r"Can't handle RDB format version",
        "a newer server wrote this data: install that version, or choose another data directory",
    ),
    (
        r"Bad file format reading the append only file",
        "the append-only file is damaged: keep a copy, then run `redis-check-aof --fix` on it",
    ),
    (
        r"Address already in use",
        "another server listens on that address: stop it, or choose another data directory",
    ),
    (
        r"[Ee]rror while loading shared libraries",
        "this build does not run on this machine: install the servers as system packages",
    ),
)


class StackError(Exception):
    """A local server could not be found, started, reached or stopped."""


class ProgramNotFoundError(StackError):
    """This machine has no usable server program."""


class PrivilegeError(StackError):
    """Root's server has no user to run as, or that user has no access to a folder."""


class AlreadyRunningError(StackError):
    """Another process runs, or is starting, a server on the same data."""


class StartFailedError(StackError):
    """A server ended, or did not answer in time, instead of starting."""


def start_failure(what: str, output: str) -> StartFailedError:
    """Return an error with the end of the server's output and, if known, the remedy."""
    remedy = next((text for pattern, text in _REMEDIES if re.search(pattern, output)), None)
    lines = [what]
    if output.strip():
        lines += ["Its last output:", *(f"  {line}" for line in output.strip().splitlines()[-15:])]
    if remedy is not None:
        lines.append(f"What to do: {remedy}.")
    return StartFailedError("\n".join(lines))

"""The errors that end a command, their messages (`culprit: remedy`) and exit codes (contract)."""

import re
from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

EXIT_CODES: Final = (
    (OK, "success"),
    (FAILED, "the command failed, or the object does not exist"),
    (USAGE, "the command line or a setting is invalid"),
    (UNREACHABLE, "Redis or PostgreSQL cannot be reached"),
    (INTERRUPTED, "interrupted with Ctrl-C"),
    (BROKEN_PIPE, "the reader of the output has closed the pipe"),
)
_CHECK: Final = "check {}, or start the servers with `runfold up`"

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
    (r"Address already in use", "stop the other server, or choose another data directory"),
    (r"rror while loading shared libraries", "install the servers as system packages"),
)


class StackError(Exception):
    """What a command wanted cannot be done, such as starting a server."""


class ProgramNotFoundError(StackError):
    """This machine has no usable server program."""


class AlreadyRunningError(StackError):
    """Another process runs, or is starting, a server on the same data."""


class StartFailedError(StackError):
    """A server ended, or did not answer in time, instead of starting."""


def start_failure(what: str, output: str) -> StartFailedError:
    """Return an error with the end of the server's output and, if known, the remedy."""
    lines = [what]
    if output.strip():
        lines += ["Its last output:", *(f"  {line}" for line in output.strip().splitlines()[-15:])]
    remedies = [text for pattern, text in _REMEDIES if re.search(pattern, output)]
    lines += [f"What to do: {remedy}." for remedy in remedies[:1]]
    return StartFailedError("\n".join(lines))


class CommandFailed(StackError):
    """End the command with a message, `culprit: remedy`, and an exit code."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def explain(error: Exception) -> tuple[str, int] | None:
    """Return the message and exit code of an expected error; None for a bug."""
    # Imported late, because successful commands often do not need these modules.
    import psycopg
    import redis

    from runfold.errors import RunfoldError, SettingInvalid
    from runfold_storage.errors import BadParameter, DatabaseUnreachable, StorageError

    line = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    match error:
        case CommandFailed():
            return str(error), error.exit_code
        case SettingInvalid() | BadParameter():
            return str(error), USAGE
        case DatabaseUnreachable() | psycopg.OperationalError():
            return f"{line}: {_CHECK.format('RUNFOLD_DATABASE_URL')}", UNREACHABLE
        case redis.ConnectionError() | redis.TimeoutError():
            return f"Redis: {line}: {_CHECK.format('RUNFOLD_REDIS_URL')}", UNREACHABLE
        case redis.RedisError():
            return f"Redis: {line}", FAILED
        case StackError() | StorageError() | RunfoldError():
            return str(error), FAILED
        case OSError() if error.strerror is not None:
            culprit = "reading or writing" if error.filename is None else error.filename
            return f"{culprit}: {error.strerror}", FAILED
        case _:
            return None

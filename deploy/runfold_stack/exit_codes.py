"""Exit codes, and the messages of expected errors.

The codes are part of the contract; `runfold --help` and the README list them.
"""

from typing import Final

from .errors import StackError

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

"""The servers that a command uses: those of the settings, else those of the data directory.

Without either, `CommandFailed` names the remedy. No server is started.
"""

from runfold_stack.servers.local_stack import Endpoints, find_database_url, find_redis_url

from .exit_codes import UNREACHABLE, CommandFailed
from .settings import Settings


def require_endpoints(settings: Settings) -> Endpoints:
    """Return both URLs; raise `CommandFailed`."""
    return Endpoints(require_redis(settings), require_database(settings))


def require_redis(settings: Settings) -> str:
    """Return the URL of Redis; raise `CommandFailed`."""
    url = settings.redis_url or find_redis_url(settings.home)
    if url is None:
        raise _missing("Redis", settings, "RUNFOLD_REDIS_URL")
    return url


def require_database(settings: Settings) -> str:
    """Return the URL of PostgreSQL; raise `CommandFailed`."""
    url = settings.database_url or find_database_url(settings.home)
    if url is None:
        raise _missing("PostgreSQL", settings, "RUNFOLD_DATABASE_URL")
    return url


def _missing(server: str, settings: Settings, variable: str) -> CommandFailed:
    return CommandFailed(
        f"no {server} is running in {settings.home}: "
        f"start one with `runfold up`, or set {variable}",
        UNREACHABLE,
    )

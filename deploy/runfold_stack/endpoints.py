"""Which servers a command talks to: those of the settings, else those that run in the data
directory, else an error that says what to do. Nothing is started here."""

from runfold_stack.processes.ports import url_of
from runfold_stack.processes.up_lock import find_up
from runfold_stack.servers.local_stack import Endpoints, find_database_url, find_redis_url

from .exit_codes import UNREACHABLE, CommandFailed
from .settings import DEFAULT_API_PORT, Settings


def api_address(settings: Settings) -> str:
    """Its URL, without a slash at the end."""
    if settings.api_url is not None:
        return settings.api_url
    up = find_up(settings.home)
    if up is not None and up.api_url is not None:
        return up.api_url
    return url_of(settings.api_host, settings.api_port or DEFAULT_API_PORT)


def require_endpoints(settings: Settings) -> Endpoints:
    """Both; raises `CommandFailed`."""
    return Endpoints(require_redis(settings), require_database(settings))


def require_redis(settings: Settings) -> str:
    """The URL of Redis; raises `CommandFailed`."""
    url = settings.redis_url or find_redis_url(settings.home)
    if url is None:
        raise _missing("Redis", settings, "RUNFOLD_REDIS_URL")
    return url


def require_database(settings: Settings) -> str:
    """The URL of PostgreSQL; raises `CommandFailed`."""
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

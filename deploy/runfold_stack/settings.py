"""The settings of the command line and of the processes it starts: read once, then frozen.

`SETTINGS` lists all variables with defaults and meanings; a test checks the README's table against
it. An empty variable counts as unset. An invalid value raises `SettingInvalid`, which names the
variable and the allowed values. The SDK's own settings are in `runfold.settings`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from runfold import settings as sdk_settings
from runfold.errors import SettingInvalid
from runfold.protocol.events import MAX_NAME
from runfold.protocol.streams import MAX_SHARDS
from runfold.protocol.time_limits import MAX_FUTURE_S
from runfold.settings import default_data_dir
from runfold_storage.checkpoints.liveness_limits import (
    DEFAULT_LIMITS,
    DEFAULT_QUEUED_S,
    DEFAULT_RUNNING_S,
    Limit,
    Limits,
)

DEFAULT_API_HOST: Final = "127.0.0.1"
DEFAULT_API_PORT: Final = 8420
DEFAULT_METRICS_HOST: Final = "127.0.0.1"
DEFAULT_LOG_LEVEL: Final = "info"
DEFAULT_WORKERS: Final = 1
AT_ONCE: Final = 1000
DEFAULT_MAX_LAG_S: Final = 10
MAX_WORKERS: Final = 64
DEFAULT_SPOOL_BYTES: Final = sdk_settings.Settings().spool_bytes

_DATABASE_SCHEMES: Final = ("postgresql://", "postgres://", "postgresql+psycopg://")
_REDIS_SCHEMES: Final = ("redis://", "rediss://", "unix://")
_LOG_LEVELS: Final = ("debug", "info", "warning", "error")


class Setting(NamedTuple):
    """One environment variable, as in the README's table."""

    name: str
    default: str
    meaning: str


SETTINGS: Final = (
    Setting("RUNFOLD_REDIS_URL", "that of `runfold up`", "Redis or Valkey that receives events"),
    Setting("RUNFOLD_DATABASE_URL", "that of `runfold up`", "PostgreSQL that stores the history"),
    Setting(
        "RUNFOLD_SHARDS",
        "the deployment's number, else 8",
        "number of streams; only the first process of a new deployment can choose it",
    ),
    Setting(
        "RUNFOLD_HOME",
        "`~/.local/share/runfold`; root: `/var/lib/runfold`",
        "data directory of the servers that `runfold up` starts",
    ),
    Setting("RUNFOLD_PROJECT", "`default`", "project of runs recorded by `exec` and `import`"),
    Setting("RUNFOLD_WORKERS", str(DEFAULT_WORKERS), "worker processes that `up` starts"),
    Setting(
        "RUNFOLD_JOBS_REDIS_URL",
        "the next database of `RUNFOLD_REDIS_URL`",
        "Redis for the queue of background jobs; required if `RUNFOLD_REDIS_URL` is a cluster",
    ),
    Setting(
        "RUNFOLD_DELETE_AT_ONCE",
        str(AT_ONCE),
        "maximum number of runs that a request deletes itself; for more, it creates a job",
    ),
    Setting(
        "RUNFOLD_ARCHIVE",
        "none: expired data is deleted",
        "folder or URL (`s3://bucket/prefix`) to archive expired data to; must be the same for "
        "workers and the API",
    ),
    Setting(
        "RUNFOLD_MAX_LAG_S",
        str(DEFAULT_MAX_LAG_S),
        "API and `doctor`: seconds that an event may wait for the fold before readiness and "
        "`doctor` report that it is behind",
    ),
    Setting("RUNFOLD_API_HOST", f"`{DEFAULT_API_HOST}`", "address that the API listens on"),
    Setting(
        "RUNFOLD_API_PORT",
        f"`{DEFAULT_API_PORT}`; if taken, any free port",
        "port that the API listens on; if this port is set and taken, the start fails",
    ),
    Setting(
        "RUNFOLD_API_URL",
        "that of `runfold up`",
        "API that `watch` reads, for example `https://runfold.example`",
    ),
    Setting(
        "RUNFOLD_METRICS_HOST",
        f"`{DEFAULT_METRICS_HOST}`",
        "address that workers serve `/metrics` on; the API serves its own on its port",
    ),
    Setting(
        "RUNFOLD_METRICS_PORT",
        "`worker`: none; `up`: free ones",
        "port of a worker's `/metrics`; `up` uses consecutive ports from here; 0: a free port",
    ),
    Setting(
        "RUNFOLD_LOST_AFTER_S",
        f"`{DEFAULT_RUNNING_S}`",
        "worker: seconds without a sign of life after which a started run is `lost`; 0: never. "
        "With values for single projects: `3600,nightly=86400`",
    ),
    Setting(
        "RUNFOLD_LOST_QUEUED_AFTER_S",
        f"`{DEFAULT_QUEUED_S}`",
        "worker: the same for a queued run",
    ),
    Setting(
        "RUNFOLD_REDACT_KEYS",
        "none",
        "additional keys, separated by commas, whose values are masked; `-key` removes one. SDK, "
        "API, CLI and workers (JSON frames) each use their own setting",
    ),
    Setting(
        "RUNFOLD_MAX_FUTURE_S",
        f"`{MAX_FUTURE_S:.0f}`",
        "maximum number of seconds that an event may be dated in the future; checked by the same "
        "processes",
    ),
    Setting("RUNFOLD_LOG_LEVEL", f"`{DEFAULT_LOG_LEVEL}`", "`debug`, `info`, `warning` or `error`"),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a command; None: not set."""

    home: Path
    redis_url: str | None = None
    database_url: str | None = None
    shards: int | None = None
    project: str | None = None
    workers: int = DEFAULT_WORKERS
    jobs_redis_url: str | None = None
    delete_at_once: int = AT_ONCE
    archive_url: str | None = None
    max_lag_s: int = DEFAULT_MAX_LAG_S
    api_host: str = DEFAULT_API_HOST
    api_port: int | None = None
    api_url: str | None = None
    metrics_host: str = DEFAULT_METRICS_HOST
    metrics_port: int | None = None
    limits: Limits = DEFAULT_LIMITS
    redact_keys: tuple[str, ...] = ()
    max_future_s: float = MAX_FUTURE_S
    log_level: str = DEFAULT_LOG_LEVEL
    spool_dir: Path | None = None
    """This and `spool_bytes` are settings of the SDK; `drain` and `doctor` read its spool."""
    spool_bytes: int = DEFAULT_SPOOL_BYTES

    @property
    def logging_level(self) -> int:
        """The level as a number of the `logging` module."""
        return logging.getLevelNamesMapping()[self.log_level.upper()]


def read_settings(environ: Mapping[str, str], *, as_root: bool) -> Settings:
    """Read the variables; `as_root` decides the default data directory."""
    given = {setting.name: environ.get(setting.name, "").strip() for setting in SETTINGS}
    home = given["RUNFOLD_HOME"]
    level = given["RUNFOLD_LOG_LEVEL"].lower() or DEFAULT_LOG_LEVEL
    if level not in _LOG_LEVELS:
        allowed = ", ".join(_LOG_LEVELS)
        raise SettingInvalid(f"RUNFOLD_LOG_LEVEL is {level!r}: expected one of {allowed}")
    project = given["RUNFOLD_PROJECT"] or None
    if project is not None and len(project) > MAX_NAME:
        raise SettingInvalid(
            f"RUNFOLD_PROJECT has {len(project)} characters: the maximum is {MAX_NAME}"
        )
    shared = ("RUNFOLD_REDACT_KEYS", "RUNFOLD_MAX_FUTURE_S")
    sdk = sdk_settings.read_settings({name: given[name] for name in shared})  # raises
    redis_url, database_url = given["RUNFOLD_REDIS_URL"], given["RUNFOLD_DATABASE_URL"]
    if redis_url:
        sdk_settings.Settings(redis_url=redis_url)  # raises
    jobs_redis_url = given["RUNFOLD_JOBS_REDIS_URL"]
    if jobs_redis_url and not jobs_redis_url.startswith(_REDIS_SCHEMES):
        raise SettingInvalid("RUNFOLD_JOBS_REDIS_URL: expected redis://user:password@host:port/1")
    if database_url and not database_url.startswith(_DATABASE_SCHEMES):
        raise SettingInvalid(  # without the value, which may hold a password
            "RUNFOLD_DATABASE_URL: expected postgresql://user:password@host:port/database"
        )
    spool_dir = environ.get("RUNFOLD_SPOOL_DIR", "").strip()
    given["RUNFOLD_SPOOL_BYTES"] = environ.get("RUNFOLD_SPOOL_BYTES", "").strip()
    return Settings(
        home=Path(home).expanduser().absolute()
        if home
        else Path(default_data_dir(environ, as_root=as_root)),
        redis_url=redis_url or None,
        database_url=database_url or None,
        shards=_number("RUNFOLD_SHARDS", given, 1, MAX_SHARDS),
        project=project,
        workers=_number("RUNFOLD_WORKERS", given, 1, MAX_WORKERS) or DEFAULT_WORKERS,
        jobs_redis_url=jobs_redis_url or None,
        delete_at_once=_number("RUNFOLD_DELETE_AT_ONCE", given, 1, 100_000) or AT_ONCE,
        archive_url=_archive_url("RUNFOLD_ARCHIVE", given),
        max_lag_s=_number("RUNFOLD_MAX_LAG_S", given, 1, 86_400) or DEFAULT_MAX_LAG_S,
        api_host=given["RUNFOLD_API_HOST"] or DEFAULT_API_HOST,
        api_port=_number("RUNFOLD_API_PORT", given, 0, 65535),
        api_url=_http_url("RUNFOLD_API_URL", given),
        metrics_host=given["RUNFOLD_METRICS_HOST"] or DEFAULT_METRICS_HOST,
        metrics_port=_number("RUNFOLD_METRICS_PORT", given, 0, 65535),
        limits=Limits(
            running=_limit("RUNFOLD_LOST_AFTER_S", given, DEFAULT_RUNNING_S),
            queued=_limit("RUNFOLD_LOST_QUEUED_AFTER_S", given, DEFAULT_QUEUED_S),
        ),
        redact_keys=sdk.redact_keys,
        max_future_s=sdk.max_future_s,
        log_level=level,
        spool_dir=Path(spool_dir or sdk_settings.default_spool_dir(environ)).absolute(),
        spool_bytes=_number("RUNFOLD_SPOOL_BYTES", given, 2**20, 2**40) or DEFAULT_SPOOL_BYTES,
    )


def _number(name: str, given: Mapping[str, str], least: int, most: int) -> int | None:
    text = given[name]
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
        raise SettingInvalid(f"{name} is {text!r}: expected a whole number from {least} to {most}")
    return int(text)


def _archive_url(name: str, given: Mapping[str, str]) -> str | None:
    """Return a URL or a folder, which must be absolute because processes start anywhere."""
    text = given[name]
    if not text:
        return None
    if "://" in text:
        if not text.split("://")[0].isalnum() or not text.split("://")[1]:
            raise SettingInvalid(f"{name}: expected a folder or a URL like s3://bucket/prefix")
        return text
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise SettingInvalid(f"{name} is {text!r}: expected an absolute folder or a URL")
    return str(path)


def _http_url(name: str, given: Mapping[str, str]) -> str | None:
    url = given[name].rstrip("/")
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number
        is_usable = False
    if url and not is_usable:
        raise SettingInvalid(f"{name}: expected http://host:port or https://host")
    return url or None


def _limit(name: str, given: Mapping[str, str], default_s: float) -> Limit:
    """Parse seconds, with exceptions for single projects: `3600,nightly=86400`."""
    by_project: dict[str, float] = {}
    for part in filter(None, map(str.strip, given[name].split(","))):
        project, _, seconds = part.rpartition("=")
        try:
            limit_s = float(seconds)
        except ValueError:
            limit_s = -1.0
        if not 0 <= limit_s <= _MAX_LIMIT_S:  # also refuses NaN
            raise SettingInvalid(
                f"{name} has {part!r}: expected seconds or project=seconds; 0: never"
            )
        by_project[project.strip()] = limit_s
    return Limit(by_project.pop("", default_s), by_project)


_MAX_LIMIT_S: Final = 10 * 365 * 86_400

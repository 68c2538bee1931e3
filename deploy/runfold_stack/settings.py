"""The settings of the command line and of what it starts: read once, in `main`, then frozen.

`SETTINGS` lists them all, with defaults and meanings; the README's table is checked against it.
An empty variable is an unset one. A value that cannot be used raises `SettingInvalid`, which
names the variable and what is allowed. The SDK has settings of its own, in `runfold.settings`.
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
    """One environment variable, in the words of the README's table."""

    name: str
    default: str
    meaning: str


SETTINGS: Final = (
    Setting("RUNFOLD_REDIS_URL", "that of `runfold up`", "Redis or Valkey: where events go first"),
    Setting(
        "RUNFOLD_DATABASE_URL", "that of `runfold up`", "PostgreSQL: where the history is kept"
    ),
    Setting(
        "RUNFOLD_SHARDS",
        "what the deployment has agreed on, else 8",
        "number of streams; only the first process of a new deployment can choose it",
    ),
    Setting(
        "RUNFOLD_HOME",
        "`~/.local/share/runfold`; root: `/var/lib/runfold`",
        "data directory of the servers that `runfold up` starts",
    ),
    Setting("RUNFOLD_PROJECT", "`default`", "project of what `exec` and `import` record"),
    Setting("RUNFOLD_WORKERS", str(DEFAULT_WORKERS), "worker processes that `up` starts"),
    Setting(
        "RUNFOLD_JOBS_REDIS_URL",
        "the next database of `RUNFOLD_REDIS_URL`",
        "Redis for the queue of background jobs; has to be given where that is a cluster",
    ),
    Setting(
        "RUNFOLD_DELETE_AT_ONCE",
        str(AT_ONCE),
        "runs that one request deletes at most; for more it makes a job",
    ),
    Setting(
        "RUNFOLD_ARCHIVE",
        "none: what goes by age is gone",
        "folder, or address as in `s3://bucket/prefix`, where retention puts what it takes away; "
        "workers and the API need the same",
    ),
    Setting(
        "RUNFOLD_MAX_LAG_S",
        str(DEFAULT_MAX_LAG_S),
        "API and `doctor`: seconds that an event may wait to be folded before readiness and the "
        "doctor say that the fold is behind",
    ),
    Setting("RUNFOLD_API_HOST", f"`{DEFAULT_API_HOST}`", "address that the API listens on"),
    Setting(
        "RUNFOLD_API_PORT",
        f"`{DEFAULT_API_PORT}`; if taken, any free one",
        "port that the API listens on; one that is given and taken is an error",
    ),
    Setting(
        "RUNFOLD_API_URL",
        "that of `runfold up`",
        "API that `watch` talks to, as in `https://runfold.example`",
    ),
    Setting(
        "RUNFOLD_METRICS_HOST",
        f"`{DEFAULT_METRICS_HOST}`",
        "address that workers serve `/metrics` on; the API serves its own beside its routes",
    ),
    Setting(
        "RUNFOLD_METRICS_PORT",
        "`worker`: none; `up`: free ones",
        "port of a worker's `/metrics`, for those of `up` the first of as many; 0: a free one",
    ),
    Setting(
        "RUNFOLD_LOST_AFTER_S",
        f"`{DEFAULT_RUNNING_S}`",
        "worker: seconds without a sign of life after which a run that has started is `lost`; "
        "0: never. A project may have its own: `3600,nightly=86400`",
    ),
    Setting(
        "RUNFOLD_LOST_QUEUED_AFTER_S",
        f"`{DEFAULT_QUEUED_S}`",
        "worker: the same for a run that is only queued",
    ),
    Setting(
        "RUNFOLD_REDACT_KEYS",
        "none",
        "further keys, separated by commas, whose values are masked; `-key` takes one away. SDK, "
        "API, CLI and workers (frames of JSON) each mask by their own",
    ),
    Setting(
        "RUNFOLD_MAX_FUTURE_S",
        f"`{MAX_FUTURE_S:.0f}`",
        "how many seconds ahead of now an event may be dated; the same processes each check it",
    ),
    Setting("RUNFOLD_LOG_LEVEL", f"`{DEFAULT_LOG_LEVEL}`", "`debug`, `info`, `warning` or `error`"),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a command may need to know; None: nothing was said."""

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
    """These two are settings of the SDK, whose spool the command line looks after."""
    spool_bytes: int = DEFAULT_SPOOL_BYTES

    @property
    def logging_level(self) -> int:
        """As the `logging` module counts."""
        return logging.getLevelNamesMapping()[self.log_level.upper()]


def read_settings(environ: Mapping[str, str], *, as_root: bool) -> Settings:
    """Read the variables; `as_root` decides where the data directory is."""
    given = {setting.name: environ.get(setting.name, "").strip() for setting in SETTINGS}
    home = given["RUNFOLD_HOME"]
    level = given["RUNFOLD_LOG_LEVEL"].lower() or DEFAULT_LOG_LEVEL
    if level not in _LOG_LEVELS:
        allowed = ", ".join(_LOG_LEVELS)
        raise SettingInvalid(f"RUNFOLD_LOG_LEVEL is {level!r}: one of {allowed} is allowed")
    project = given["RUNFOLD_PROJECT"] or None
    if project is not None and len(project) > MAX_NAME:
        raise SettingInvalid(f"RUNFOLD_PROJECT has {len(project)} characters: at most {MAX_NAME}")
    ours = ("RUNFOLD_REDACT_KEYS", "RUNFOLD_MAX_FUTURE_S")
    sdk = sdk_settings.read_settings({name: given[name] for name in ours})  # raises
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
        archive_url=_place("RUNFOLD_ARCHIVE", given),
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
        raise SettingInvalid(f"{name} is {text!r}: a whole number from {least} to {most} is needed")
    return int(text)


def _place(name: str, given: Mapping[str, str]) -> str | None:
    """A folder, which has to be absolute as processes may be started anywhere, or an address."""
    text = given[name]
    if not text:
        return None
    if "://" in text:
        if not text.split("://")[0].isalnum() or not text.split("://")[1]:
            raise SettingInvalid(f"{name}: expected a folder, or an address as s3://bucket/prefix")
        return text
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise SettingInvalid(f"{name} is {text!r}: an absolute folder is needed, or an address")
    return str(path)


def _http_url(name: str, given: Mapping[str, str]) -> str | None:
    url = given[name].rstrip("/")
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        is_usable = False
    if url and not is_usable:
        raise SettingInvalid(f"{name}: expected http://host:port or https://host")
    return url or None


def _limit(name: str, given: Mapping[str, str], default_s: float) -> Limit:
    """Seconds, and for some projects others: `3600,nightly=86400`."""
    by_project: dict[str, float] = {}
    for part in filter(None, map(str.strip, given[name].split(","))):
        project, _, seconds = part.rpartition("=")
        try:
            limit_s = float(seconds)
        except ValueError:
            limit_s = -1.0
        if not 0 <= limit_s <= _MAX_LIMIT_S:  # nor is it NaN
            raise SettingInvalid(
                f"{name} has {part!r}: seconds are needed, or project=seconds; 0: never"
            )
        by_project[project.strip()] = limit_s
    return Limit(by_project.pop("", default_s), by_project)


_MAX_LIMIT_S: Final = 10 * 365 * 86_400

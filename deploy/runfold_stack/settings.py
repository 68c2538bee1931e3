"""The settings of the command line and of the processes it starts: read once, then frozen.

An empty variable counts as unset. An invalid value raises `SettingInvalid`, which names the
variable and the allowed values. The SDK's own settings are in `runfold.settings`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from runfold import settings as sdk_settings
from runfold.errors import SettingInvalid
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

DEFAULT_API_PORT: Final = 8420
_LOG_LEVELS: Final = ("debug", "info", "warning", "error")
_MAX_LIMIT_S: Final = 10 * 365 * 86_400


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a command; None: not set."""

    home: Path
    redis_url: str | None = None
    database_url: str | None = None
    shards: int | None = None
    project: str | None = None
    workers: int = 1
    jobs_redis_url: str | None = None
    delete_at_once: int = 1000
    archive_url: str | None = None
    max_lag_s: int = 10
    api_host: str = "127.0.0.1"
    api_port: int | None = None
    api_url: str | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    limits: Limits = DEFAULT_LIMITS
    redact_keys: tuple[str, ...] = ()
    max_future_s: float = MAX_FUTURE_S
    log_level: str = "info"
    spool_dir: Path | None = None
    """This and `spool_bytes` are settings of the SDK; `drain` and `doctor` read its spool."""
    spool_bytes: int = sdk_settings.Settings().spool_bytes


Parse = Callable[[str, str], Any]
"""Takes a variable's name and its text; raises `SettingInvalid`."""


def _number(least: int, most: int) -> Parse:
    def parse(name: str, text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
            raise SettingInvalid(f"{name} is {text!r}: expected a whole number, {least} to {most}")
        return int(text)

    return parse


def _url(schemes: tuple[str, ...], example: str) -> Parse:
    def parse(name: str, text: str) -> str:
        if not text.startswith(schemes):  # the message omits the value, which may hold a password
            raise SettingInvalid(f"{name}: expected {example}")
        return text

    return parse


def _of_sdk(name: str, text: str) -> Any:
    sdk = sdk_settings.read_settings({name: text})
    return getattr(sdk, name.removeprefix("RUNFOLD_").lower())


def _archive(name: str, text: str) -> str:
    """Return a URL or a folder, which must be absolute because processes start anywhere."""
    scheme, separator, rest = text.partition("://")
    if separator:
        if not scheme.isalnum() or not rest:
            raise SettingInvalid(f"{name}: expected a folder or a URL like s3://bucket/prefix")
        return text
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise SettingInvalid(f"{name} is {text!r}: expected an absolute folder or a URL")
    return str(path)


def _http_url(name: str, text: str) -> str:
    url = text.rstrip("/")
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number
        is_usable = False
    if not is_usable:
        raise SettingInvalid(f"{name}: expected http://host:port or https://host")
    return url


def _limit(default_s: float) -> Parse:
    """Parse seconds, with exceptions for single projects: `3600,nightly=86400`."""

    def parse(name: str, text: str) -> Limit:
        by_project: dict[str, float] = {}
        for part in filter(None, map(str.strip, text.split(","))):
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

    return parse


def _log_level(name: str, text: str) -> str:
    level = text.lower()
    if level not in _LOG_LEVELS:
        raise SettingInvalid(f"{name} is {text!r}: expected one of {', '.join(_LOG_LEVELS)}")
    return level


VARIABLES: Final[dict[str, Parse]] = {
    "RUNFOLD_REDIS_URL": _of_sdk,
    "RUNFOLD_DATABASE_URL": _url(
        ("postgresql://", "postgres://", "postgresql+psycopg://"),
        "postgresql://user:password@host:port/database",
    ),
    "RUNFOLD_SHARDS": _number(1, MAX_SHARDS),
    "RUNFOLD_HOME": lambda _, text: Path(text).expanduser().absolute(),
    "RUNFOLD_PROJECT": _of_sdk,
    "RUNFOLD_WORKERS": _number(1, 64),
    "RUNFOLD_JOBS_REDIS_URL": _url(
        ("redis://", "rediss://", "unix://"), "redis://user:password@host:port/1"
    ),
    "RUNFOLD_DELETE_AT_ONCE": _number(1, 100_000),
    "RUNFOLD_ARCHIVE": _archive,
    "RUNFOLD_MAX_LAG_S": _number(1, 86_400),
    "RUNFOLD_API_HOST": lambda _, text: text,
    "RUNFOLD_API_PORT": _number(0, 65535),
    "RUNFOLD_API_URL": _http_url,
    "RUNFOLD_METRICS_HOST": lambda _, text: text,
    "RUNFOLD_METRICS_PORT": _number(0, 65535),
    "RUNFOLD_LOST_AFTER_S": _limit(DEFAULT_RUNNING_S),
    "RUNFOLD_LOST_QUEUED_AFTER_S": _limit(DEFAULT_QUEUED_S),
    "RUNFOLD_REDACT_KEYS": _of_sdk,
    "RUNFOLD_MAX_FUTURE_S": _of_sdk,
    "RUNFOLD_LOG_LEVEL": _log_level,
}
_SPOOL: Final = dict.fromkeys(("RUNFOLD_SPOOL_DIR", "RUNFOLD_SPOOL_BYTES"), _of_sdk)


def read_settings(environ: Mapping[str, str], *, as_root: bool) -> Settings:
    """Read the variables; `as_root` decides the default data directory."""
    found: dict[str, Any] = {
        "home": Path(default_data_dir(environ, as_root=as_root)),
        "spool_dir": sdk_settings.default_spool_dir(environ),
    }
    for name, parse in (VARIABLES | _SPOOL).items():
        if text := environ.get(name, "").strip():
            found[name.removeprefix("RUNFOLD_").lower()] = parse(name, text)
    found["limits"] = Limits(
        running=found.pop("lost_after_s", DEFAULT_LIMITS.running),
        queued=found.pop("lost_queued_after_s", DEFAULT_LIMITS.queued),
    )
    found["archive_url"] = found.pop("archive", None)
    found["spool_dir"] = Path(found["spool_dir"]).absolute()
    return Settings(**found)

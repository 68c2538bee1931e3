"""The settings of the SDK: arguments, then environment variables, then defaults."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypedDict, get_args

import msgspec
from msgspec import Struct
from redis.connection import parse_url

from runfold.protocol.events import MAX_NAME
from runfold.protocol.streams import DEFAULT_REDIS_URL, MAX_SHARDS
from runfold.protocol.time_limits import MAX_FUTURE_S

from .errors import SettingInvalid

_SOCKET: Final = os.path.join("redis", "redis.sock")


def default_data_dir(environ: Mapping[str, str], *, as_root: bool) -> str:
    """Return the data folder of `runfold up`: below XDG's for a user, in `/var/lib` for root."""
    return "/var/lib/runfold" if as_root else _own_folder(environ, "XDG_DATA_HOME", "share")


def default_spool_dir(environ: Mapping[str, str]) -> str:
    """Return the default spool folder, below XDG's folder for the state of programs."""
    return os.path.join(_own_folder(environ, "XDG_STATE_HOME", "state"), "spool")


def _own_folder(environ: Mapping[str, str], base_variable: str, base_name: str) -> str:
    base = environ.get(base_variable, "").strip()
    if not os.path.isabs(base):  # as the XDG specification asks for
        base = os.path.join(os.path.expanduser("~"), ".local", base_name)
    return os.path.join(base, "runfold")


def default_redis_url(environ: Mapping[str, str]) -> str:
    """Return the Redis of `runfold up` if its socket's folder exists, else the usual port."""
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    home = environ.get("RUNFOLD_HOME", "").strip() or default_data_dir(environ, as_root=as_root)
    socket = os.path.join(os.path.abspath(home), _SOCKET)
    return f"unix://{socket}?db=0" if os.path.isdir(os.path.dirname(socket)) else DEFAULT_REDIS_URL


MAX_SECONDS: Final = 86_400.0
_TEN_YEARS_S: Final = 10 * 365 * 86_400.0

Backpressure = Literal["spool", "block", "drop_oldest"]
BACKPRESSURES: Final[tuple[str, ...]] = get_args(Backpressure)


class SettingArguments(TypedDict, total=False):
    """The arguments of `Recorder`, besides `redis_url`; None is the same as leaving one out."""

    project: str | None
    shards: int | None
    redact_keys: Sequence[str] | None
    buffer_events: int | None
    buffer_bytes: int | None
    buffer_wait_s: float | None
    heartbeat_s: float | None
    exit_flush_s: float | None
    backpressure: Backpressure | None
    spool_dir: str | None
    spool_bytes: int | None
    max_future_s: float | None


class Settings(Struct, frozen=True, kw_only=True):
    """The settings of a `Recorder`. With `shards=None` the deployment's number is used."""

    redis_url: str = DEFAULT_REDIS_URL
    shards: int | None = None
    project: str | None = None
    redact_keys: tuple[str, ...] = ()
    buffer_events: int = 100_000
    buffer_bytes: int = 64 * 1024 * 1024
    buffer_wait_s: float = 5.0
    heartbeat_s: float = 60.0
    exit_flush_s: float = 5.0
    backpressure: Backpressure = "spool"
    spool_dir: str | None = None  # `default_spool_dir`
    spool_bytes: int = 1024**3
    max_future_s: float = MAX_FUTURE_S

    def __post_init__(self) -> None:
        try:
            parse_url(self.redis_url)  # type: ignore[no-untyped-call]  # redis-py has no types here
        except (ValueError, TypeError, AttributeError) as error:
            head, at, tail = str(self.redis_url).rpartition("@")
            shown = f"{head.partition('://')[0]}://…@{tail}" if at else tail  # without credentials
            raise invalid("redis_url", shown, str(error)) from None
        if self.shards is not None:
            _check_int("shards", self.shards, 1, MAX_SHARDS)
        if self.project is not None and not 1 <= len(self.project) <= MAX_NAME:
            raise invalid("project", self.project, f"1 to {MAX_NAME} characters are allowed")
        for key in self.redact_keys:
            if not isinstance(key, str) or (not any(map(str.isalnum, key)) and key != "-*"):
                raise invalid("redact_keys", key, "a key has at least one letter or digit")
        _check_int("buffer_events", self.buffer_events, 1, 100_000_000)
        _check_int("buffer_bytes", self.buffer_bytes, 1024 * 1024, 1024**4)
        _check_seconds("buffer_wait_s", self.buffer_wait_s, "; 0 does not wait")
        _check_seconds("heartbeat_s", self.heartbeat_s, "; 0 sends none")
        _check_seconds("exit_flush_s", self.exit_flush_s, "; 0 does not wait")
        if self.backpressure not in BACKPRESSURES:
            known = ", ".join(f"`{value}`" for value in BACKPRESSURES)
            raise invalid("backpressure", self.backpressure, f"one of {known} is allowed")
        if self.spool_dir is not None and not isinstance(self.spool_dir, str):
            raise invalid("spool_dir", self.spool_dir, "the path of a folder is needed")
        _check_int("spool_bytes", self.spool_bytes, 1024 * 1024, 1024**4)
        _check_seconds("max_future_s", self.max_future_s, "", most=_TEN_YEARS_S)


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"RUNFOLD_{name.upper()}"


def invalid(name: str, value: object, allowed: str) -> SettingInvalid:
    """Return the error for a setting, which names variable and argument."""
    return SettingInvalid(f"{variable(name)} (argument `{name}`) is {value!r}: {allowed}")


def read_settings(environ: Mapping[str, str], **arguments: Any) -> Settings:
    """Return settings from arguments that are not None, the environment, and the defaults."""
    found: dict[str, Any] = {}
    for name in Settings.__struct_fields__:
        if arguments.get(name) is not None:
            found[name] = arguments[name]
        elif text := environ.get(variable(name), "").strip():
            found[name] = _parse(name, text)
    found.setdefault("redis_url", default_redis_url(environ))
    if isinstance(found.get("redact_keys"), str):
        keys = map(str.strip, found["redact_keys"].split(","))
        found["redact_keys"] = tuple(filter(None, keys))
    elif "redact_keys" in found:
        found["redact_keys"] = tuple(found["redact_keys"])
    return Settings(**found)


def _parse(name: str, text: str) -> Any:
    if name in ("redis_url", "project", "redact_keys", "backpressure", "spool_dir"):
        return text
    kind: type = float if name.endswith("_s") else int
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError:
        needed = "a number of seconds" if kind is float else "a whole number"
        raise invalid(name, text, f"{needed} is needed") from None


def _check_int(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise invalid(name, value, f"a whole number from {least} to {most} is allowed")


def _check_seconds(name: str, value: object, zero: str, most: float = MAX_SECONDS) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 <= value <= most:  # type: ignore[arg-type, operator]  # checked just before
        raise invalid(name, value, f"0 to {most:.0f} seconds are allowed{zero}")

"""The `runfold up` of a data directory, and the address of its API.

Invariant: a running `up` holds the exclusive lock on `up.lock`, so a data directory has one.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from runfold_stack.errors import CommandFailed
from runfold_stack.servers.lock_file import LockFile
from runfold_stack.servers.privileges import check_home
from runfold_stack.settings import DEFAULT_API_PORT, Settings

from .ports import url_of

_NAME: Final = "up.lock"
_READERS_S: Final = 0.5


class UpState(Struct, frozen=True):
    """The content of the lock file; `api_url` is None until the API answers."""

    pid: int
    api_url: str | None = None
    metrics_urls: tuple[str, ...] = ()


@contextmanager
def claim_up(home: Path) -> Iterator[Callable[[UpState], None]]:
    """Hold the lock, or raise `CommandFailed`; yield a function that publishes the state."""
    check_home(home, to_write=True)
    home.mkdir(parents=True, exist_ok=True)

    def refuse(waited_s: float, content: bytes) -> None:
        if waited_s > _READERS_S:
            state = _decode(content)
            where = f", API at {state.api_url}" if state.api_url else ", still starting"
            raise CommandFailed(
                f"`runfold up` already runs on {home} (pid {state.pid}{where}): use that one, "
                "stop it with `runfold down`, or set RUNFOLD_HOME to another directory"
            )

    with LockFile(home / _NAME).claim(refuse) as fd:

        def publish(state: UpState) -> None:
            text = msgspec.json.encode(state)
            os.pwrite(fd, text, 0)
            os.ftruncate(fd, len(text))

        publish(UpState(os.getpid()))
        yield publish


def find_up(home: Path) -> UpState | None:
    """Return the state of the `runfold up` on this data directory; None if none runs."""
    content = LockFile(home / _NAME).read()
    return None if content is None else _decode(content)


def _decode(content: bytes) -> UpState:
    try:
        return msgspec.json.decode(content, type=UpState)
    except msgspec.MsgspecError:  # `up` is writing it at this moment
        return UpState(0)


def api_address(settings: Settings) -> str:
    """Return the URL of the API: the configured one, else that of `up`; without a slash."""
    if settings.api_url is not None:
        return settings.api_url
    up = find_up(settings.home)
    if up is not None and up.api_url is not None:
        return up.api_url
    return url_of(settings.api_host, settings.api_port or DEFAULT_API_PORT)

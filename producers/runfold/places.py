"""Where things lie on this machine, unless a setting says otherwise."""

import os
from collections.abc import Mapping
from typing import Final

from .streams import DEFAULT_REDIS_URL

_SOCKET: Final = os.path.join("redis", "redis.sock")


def default_data_dir(environ: Mapping[str, str], *, as_root: bool) -> str:
    """The folder of `runfold up`: one a user (XDG base directories), one for root."""
    if as_root:
        return "/var/lib/runfold"
    # The specification says to ignore a relative path.
    base = environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".local", "share")
    return os.path.join(base, "runfold")


def default_redis_url(environ: Mapping[str, str]) -> str:
    """The Redis of `runfold up`, if that was ever called here, else the usual port.

    If it is stopped at the moment, events wait for it.
    """
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    home = environ.get("RUNFOLD_HOME", "").strip() or default_data_dir(environ, as_root=as_root)
    socket = os.path.join(os.path.abspath(home), _SOCKET)
    return f"unix://{socket}?db=0" if os.path.isdir(os.path.dirname(socket)) else DEFAULT_REDIS_URL

"""Whether the data directory can be used, before anything is looked for in it.

Without this a folder that is closed to us looks like one in which nothing runs.
"""

import os
import pwd
from pathlib import Path

from runfold_stack.errors import StackError

_REMEDY = "set RUNFOLD_HOME to a folder of yours"


def check_home(home: Path, *, to_write: bool = False) -> None:
    """Raise `StackError` if the data directory is there and closed to us, or cannot be made."""
    place = home
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent  # what is closed hides what it holds: look from there upwards
    if not place.is_dir():
        raise StackError(f"{place} is not a folder: {_REMEDY}")
    wanted = os.R_OK | os.X_OK | (os.W_OK if to_write else 0)
    if place != home:
        wanted = os.X_OK | (os.W_OK if to_write else 0)
    if os.access(place, wanted):
        return
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise StackError(f"{place} is on a file system that cannot be written to: {_REMEDY}")
    raise StackError(
        f"{place} is closed to {_account(os.geteuid())}, it belongs to "
        f"{_account(place.stat().st_uid)}: run this as that user, or {_REMEDY}"
    )


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"

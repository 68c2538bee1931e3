"""Where a server's Unix socket lies: a pure function of its folder.

So every process that knows the data directory knows the address, and no state
file can go stale. The socket lies in the server's own folder, which only its
owner may enter; that is the whole access control. A socket's path has room for
about a hundred bytes, and URLs, libpq and configuration files each quote in
their own way: folders with a long or unusual name get a short private one
below `/tmp` instead, named by a hash. It is left there when the server stops:
removing it could take it from a server that is just being started.
"""

import hashlib
import os
import re
import stat
from pathlib import Path

from runfold_stack.errors import StackError

from .owned_folder import Identity
from .privileges import chown_to

# sun_path has 104 bytes on macOS, 108 on Linux, and ends with a NUL.
_MAX_SOCKET_BYTES = 103
# libpq splits hosts at commas; the rest would have to be quoted, each time differently.
_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")
# Not TMPDIR: it differs between terminals, and on macOS it is long.
_SHORT_ROOT = Path("/tmp")  # noqa: S108 - the folder is private, and checked to be


def socket_folder(home: Path, socket_name: str) -> Path:
    """Return the folder for the socket of the server that lives in `home`."""
    own = home.resolve()
    path = f"{own}/{socket_name}"
    if len(path.encode()) <= _MAX_SOCKET_BYTES and _PLAIN.fullmatch(path):
        return own
    digest = hashlib.sha256(os.fsencode(own)).hexdigest()[:16]
    return _SHORT_ROOT / f"runfold-{digest}"


def claim_socket_folder(folder: Path, home: Path, identity: Identity | None) -> None:
    """Make the folder unless it is there, and refuse one that is not private to the owner."""
    try:
        folder.mkdir(mode=0o700)
        chown_to(folder, identity)
    except FileExistsError:
        pass
    if not is_private(folder, home):
        raise StackError(
            f"{folder} is needed for a server's socket, but it is not a folder that only the "
            f"owner of {home} can enter. Find out whose it is and remove it."
        )


def is_private(folder: Path, home: Path) -> bool:
    """Tell whether only the owner of `home` (and root) can have made what lies in `folder`."""
    try:
        status = folder.lstat()
        owner = home.stat().st_uid
    except OSError:
        return False
    mode = stat.S_IMODE(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == owner and mode & 0o077 == 0

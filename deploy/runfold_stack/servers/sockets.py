"""The path of a server's Unix socket: a pure function of its folder.

Every process that knows the data directory therefore knows the address, and no state file can go
stale. The socket lies in the server's own folder, which only its owner can enter; there is no other
access control. A socket's path has room for about a hundred bytes, and URLs, libpq and
configuration files quote differently. So if the folder's name is long or unusual, the socket lies
in a short private folder below `/tmp`, named by a hash. That folder stays when the server stops,
because another server may be starting in it.
"""

import hashlib
import os
import re
import stat
from pathlib import Path

from runfold_stack.errors import StackError

from .owned_folder import Identity

# sun_path has 104 bytes on macOS, 108 on Linux, and ends with a NUL.
_MAX_SOCKET_BYTES = 103
# libpq splits hosts at commas; other characters need quoting, differently in each place.
_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")
# Not TMPDIR: it differs between terminals, and on macOS it is long.
_SHORT_ROOT = Path("/tmp")  # noqa: S108, the folder below is checked to be private


def socket_folder(home: Path, socket_name: str) -> Path:
    """Return the folder for the socket of the server whose data directory is `home`."""
    own = home.resolve()
    path = f"{own}/{socket_name}"
    if len(path.encode()) <= _MAX_SOCKET_BYTES and _PLAIN.fullmatch(path):
        return own
    digest = hashlib.sha256(os.fsencode(own)).hexdigest()[:16]
    return _SHORT_ROOT / f"runfold-{digest}"


def claim_socket_folder(folder: Path, home: Path, identity: Identity | None) -> None:
    """Make the folder if it is missing; raise StackError if it is not private to the owner."""
    try:
        folder.mkdir(mode=0o700)
        if identity is not None:
            os.chown(folder, identity.uid, identity.gid, follow_symlinks=False)
    except FileExistsError:
        pass
    if not is_private(folder, home):
        raise StackError(
            f"{folder} is needed for a server's socket, but users other than the owner of {home} "
            "can enter it, or it is no folder. Find out what it is used for and remove it."
        )


def is_private(folder: Path, home: Path) -> bool:
    """Return whether only the owner of `home` (and root) can have put files into `folder`."""
    try:
        status = folder.lstat()
        owner = home.stat().st_uid
    except OSError:
        return False
    mode = stat.S_IMODE(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == owner and mode & 0o077 == 0

"""The user that a server runs as, and that user's access to the data directory and the programs.

An ordinary user's servers run as that user. Servers that root starts never run as root (PostgreSQL
refuses to, and Redis has no need): they run as the owner of their folder, which for a new folder is
`postgres` or else `nobody`.

That user may lack access to a folder above the data or above the program: `/root` is 0700, and so
is a private temporary folder. Then the server keeps the smallest capability that gives it access:
CAP_DAC_READ_SEARCH or, where a container withholds that, CAP_DAC_OVERRIDE. A warning names it,
because processes of that user can then read (or with the second, write) what root can. Where
access is open, as in `/var/lib/runfold`, the server keeps none.
"""

import json
import logging
import os
import pwd
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from runfold_stack.errors import StackError

from .owned_folder import Identity, open_folder

CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2

_ACCOUNTS = ("postgres", "nobody")
_READ, _EXECUTE = 4, 1
_HOME_REMEDY = "set RUNFOLD_HOME to a folder of yours"

_logger = logging.getLogger(__name__)


def prepare_data_dir(home: Path, program: Path) -> Identity | None:
    """Make the server's folder, private to the user that the server will run as.

    Return the identity to change to before running `program`; None: no change is needed. Files of
    root's in the folder (a copy restored from a backup, for example) are given to that user.
    """
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=0o700, exist_ok=True)
        with open_folder(home) as folder:
            owner = os.fstat(folder)
            if os.geteuid() not in (0, owner.st_uid):
                raise StackError(
                    f"{home} belongs to user {owner.st_uid}, not to you (user {os.geteuid()}). "
                    "Choose another data directory, or start the servers as that user."
                )
            os.fchmod(folder, 0o700)
            if os.geteuid() != 0:
                return None
            uid, gid = (owner.st_uid, owner.st_gid) if owner.st_uid != 0 else _service_account()
            if owner.st_uid == 0:
                _hand_over(folder, uid, gid)
    except OSError as error:
        raise StackError(
            f"The data directory {home} cannot be used: {error.strerror}: {error.filename}. "
            "Choose another one, or correct its owner and permissions."
        ) from error
    return Identity(uid, gid, _needed_capability(uid, gid, home, program))


def command_as(
    identity: Identity | None, command: Sequence[str], *, death_signal: int | None = None
) -> list[str]:
    """Return a command that first changes to `identity` and then runs `command`.

    The kernel sends it `death_signal` when the *thread* that started it ends (Linux only:
    PR_SET_PDEATHSIG), so start it from a thread that stays.
    """
    if not sys.platform.startswith("linux"):
        death_signal = None
    if identity is None and death_signal is None:
        return list(command)
    request = {
        **(identity._asdict() if identity else {}),
        "death_signal": death_signal,
        "parent": os.getpid(),
    }
    script = Path(__file__).with_name("launch.py")
    # -I and -S: neither the environment nor site-packages can add code that runs as root.
    return [sys.executable, "-I", "-S", str(script), json.dumps(request), *command]


def environment() -> dict[str, str]:
    """Return a server's environment: this one's without PostgreSQL's variables, and LC_ALL=C."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C"}


def check_home(home: Path, *, to_write: bool = False) -> None:
    """Raise `StackError` if the data directory is inaccessible, or missing and cannot be made."""
    path = home
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent  # an inaccessible folder hides what it contains, so check its parents
    if not path.is_dir():
        raise StackError(f"{path} is not a folder: {_HOME_REMEDY}")
    wanted = os.X_OK | (os.W_OK if to_write else 0) | (os.R_OK if path == home else 0)
    if os.access(path, wanted):
        return
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise StackError(f"{path} is on a read-only file system: {_HOME_REMEDY}")
    raise StackError(
        f"{_account_name(os.geteuid())} has no access to {path}, which belongs to "
        f"{_account_name(path.stat().st_uid)}: run this as that user, or {_HOME_REMEDY}"
    )


def _service_account() -> tuple[int, int]:
    for name in _ACCOUNTS:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            if entry.pw_uid != 0:
                return entry.pw_uid, entry.pw_gid
    raise StackError(
        "The servers do not run as root, and this machine has neither of the users `postgres` and "
        "`nobody` to run them as. Do one of:\n"
        "  useradd --system postgres\n"
        "  start runfold as an ordinary user"
    )


def _hand_over(home: int, uid: int, gid: int) -> None:
    """Use open folders, because the new owner can change files while the rest is handed over."""
    for _, _, files, folder in os.fwalk(dir_fd=home):
        for name in files:
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
        os.fchown(folder, uid, gid)


def _needed_capability(uid: int, gid: int, home: Path, program: Path) -> int | None:
    def may(path: Path, wanted: int) -> bool:
        status = path.stat()
        shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
        return stat.S_IMODE(status.st_mode) >> shift & wanted == wanted

    folders = [*_parents(home), *_parents(program)]
    closed = [folder for folder in folders if not may(folder, _EXECUTE)]
    runs = may(program, _READ | _EXECUTE)
    if runs and not closed:
        return None
    account, culprit = _account_name(uid), closed[0] if closed else program
    permitted = _permitted_capabilities()
    # Search access is enough, except to run a file that only root may execute.
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE) if runs else (CAP_DAC_OVERRIDE,):
        if permitted >> capability & 1:
            _logger.warning(
                "server keeps a capability of root's for a folder that its user cannot access",
                extra={"capability": capability, "user": account, "closed": str(culprit)},
            )
            return capability
    raise StackError(
        f"The servers run as `{account}`, not as root, and `{account}` has no access to {culprit}. "
        "Do one of:\n"
        f"  chmod o+x {culprit}\n"
        "  choose another data directory, for example /var/lib/runfold\n"
        "  start runfold as an ordinary user"
    )


def _account_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        # In a container, a volume may belong to a user without a name.
        return f"user {uid}"


def _parents(path: Path) -> list[Path]:
    return [*reversed(path.absolute().parents), *reversed(path.resolve().parents)]


def _permitted_capabilities() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:")), 0)

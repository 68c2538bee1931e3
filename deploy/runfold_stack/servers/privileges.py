"""As whom a server runs.

An ordinary user's servers run as that user. Root's never run as root (PostgreSQL
refuses to, and a Redis need not): they run as the owner of their folder, at
first `postgres` or else `nobody`.

That user may be barred from a folder on the way to the data or to the program
(`/root` is 0700, so is a private temporary folder). Copying the data elsewhere
would take it off the volume that somebody chose for it, so instead the server
keeps the smallest capability that lets it pass: CAP_DAC_READ_SEARCH, or where a
container withholds that one, CAP_DAC_OVERRIDE. Where nothing bars the way, as to
`/var/lib/runfold`, it keeps none. The price of one is said in a warning: whoever
can act as that user then reads (or with the second, writes) what root can.
"""

import json
import logging
import os
import pwd
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from runfold_stack.errors import PrivilegeError, StackError

from .owned_folder import Identity, open_folder

CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2

_ACCOUNTS = ("postgres", "nobody")
_READ, _EXECUTE = 4, 1

_logger = logging.getLogger(__name__)


def prepare_data_dir(home: Path, program: Path) -> Identity | None:
    """Make the server's folder, private to whom the server will run as.

    Return whom to become before running `program`; None means nobody else. What
    root left in the folder (a copy restored from a backup, say) is handed over.
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
    """Turn a command into one that first becomes `identity`.

    `death_signal` reaches it when the *thread* that started it ends (Linux only:
    PR_SET_PDEATHSIG), so start such a server from a thread that stays.
    """
    if not sys.platform.startswith("linux"):
        death_signal = None
    if identity is None and death_signal is None:
        return list(command)
    order = {
        "uid": identity.uid if identity else None,
        "gid": identity.gid if identity else None,
        "capability": identity.capability if identity else None,
        "death_signal": death_signal,
        "parent": os.getpid(),
    }
    script = Path(__file__).with_name("launch.py")
    # -I and -S: neither the environment nor site-packages has a say in what runs as root.
    return [sys.executable, "-I", "-S", str(script), json.dumps(order), *command]


def chown_to(path: Path, identity: Identity | None) -> None:
    """Let a folder that we made belong to the server."""
    if identity is not None:
        os.chown(path, identity.uid, identity.gid, follow_symlinks=False)


def _service_account() -> tuple[int, int]:
    for name in _ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return entry.pw_uid, entry.pw_gid
    raise PrivilegeError(
        "The servers do not run as root, and this machine has neither a user `postgres` nor "
        "`nobody` to run them as. Do one of:\n"
        "  useradd --system postgres\n"
        "  start runfold as an ordinary user"
    )


def _hand_over(home: int, uid: int, gid: int) -> None:
    """By open folders: what is handed over first may be changed while the rest is."""
    for _, _, files, folder in os.fwalk(dir_fd=home):
        for name in files:
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
        os.fchown(folder, uid, gid)


def _needed_capability(uid: int, gid: int, home: Path, program: Path) -> int | None:
    barred = [f for f in _folders_to(home, program) if not _may(f.stat(), uid, gid, _EXECUTE)]
    runs = _may(program.stat(), uid, gid, _READ | _EXECUTE)
    if runs and not barred:
        return None
    account, culprit = _account_name(uid), barred[0] if barred else program
    permitted = _permitted_capabilities()
    # Reading and passing through is enough, except to run a file that only root may run.
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE) if runs else (CAP_DAC_OVERRIDE,):
        if permitted >> capability & 1:
            _logger.warning(
                "server keeps a capability of root's to pass a folder closed to its user",
                extra={"capability": capability, "user": account, "closed": str(culprit)},
            )
            return capability
    raise PrivilegeError(
        f"The servers run as `{account}`, not as root, and {culprit} does not let `{account}` "
        "pass. Do one of:\n"
        f"  chmod o+x {culprit}\n"
        "  choose another data directory, /var/lib/runfold for one\n"
        "  start runfold as an ordinary user"
    )


def _account_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        # A volume may belong to a user that this container has no name for.
        return f"user {uid}"


def _folders_to(*paths: Path) -> Iterator[Path]:
    for path in paths:
        yield from reversed(path.absolute().parents)
        yield from reversed(path.resolve().parents)


def _may(status: os.stat_result, uid: int, gid: int, wanted: int) -> bool:
    if status.st_uid == uid:
        granted = stat.S_IMODE(status.st_mode) >> 6
    elif status.st_gid == gid:
        granted = stat.S_IMODE(status.st_mode) >> 3
    else:
        granted = stat.S_IMODE(status.st_mode)
    return granted & wanted == wanted


def _permitted_capabilities() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:")), 0)

"""Become someone else, then become a server.

Run as a script between fork and exec, in a process of its own: a `preexec_fn`
would run Python in the fork of a threaded process and may deadlock there. The
process id stays, so whoever started this has the server's. Standard library
only; nothing here outlives the exec.

Usage: launch.py '{"uid": …, "gid": …, "capability": …, "death_signal": …,
"parent": …}' PROGRAM ARGUMENT…; each value may be null.
"""

import ctypes
import json
import os
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x20080522


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _prctl(option: int, *arguments: int) -> None:
    # The kernel wants longs, and zeros for what an option does not use.
    longs = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    _call("prctl", option, *longs)


def _keep(capability: int) -> None:
    """Hold one capability, and nothing else, across the exec (Linux 4.3+, capabilities(7))."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = (1 << capability) & 0xFFFFFFFF, (1 << capability) >> 32
    sets = (ctypes.c_uint32 * 6)(low, low, low, high, high, high)
    _call("capset", header, sets)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def _become(uid: int, gid: int, capability: int | None) -> None:
    if capability is not None:
        _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if capability is not None:
        _keep(capability)


def main(arguments: list[str]) -> None:
    """Change identity as told and replace this process by the program."""
    order = json.loads(arguments[0])
    command = arguments[1:]
    try:
        if order["uid"] is not None:
            _become(order["uid"], order["gid"], order["capability"])
        if order["death_signal"] is not None:
            # After the change of user, which clears it.
            _prctl(_PR_SET_PDEATHSIG, order["death_signal"])
            if os.getppid() != order["parent"]:
                sys.exit("launch: the parent is gone already")
        os.execv(command[0], command)  # noqa: S606 - exactly this is the purpose
    except OSError as error:
        sys.exit(f"launch: cannot run {command[0]} as {order}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Change to another user, then replace this process by a server.

This runs as a script between fork and exec, because a `preexec_fn` would run Python in the fork of
a threaded process, where it can deadlock. The process id stays the same, so the starter knows the
server's. It uses the standard library only.

Usage: launch.py '{"uid": …, "gid": …, "capability": …, "death_signal": …, "parent": …}'
PROGRAM ARGUMENT…; the first three may be absent, and `capability` and `death_signal` null.
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


_libc = ctypes.CDLL(None, use_errno=True)


def _check(status: int) -> None:
    if status != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _prctl(option: int, *arguments: int) -> None:
    # The kernel expects longs, and zeros for unused arguments.
    longs = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    _check(_libc.prctl(option, *longs))


def _become(uid: int, gid: int, capability: int | None) -> None:
    """Change the user, and keep one capability at most across the exec (capabilities(7))."""
    if capability is not None:
        _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if capability is not None:
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        low, high = (1 << capability) & 0xFFFFFFFF, (1 << capability) >> 32
        sets = (ctypes.c_uint32 * 6)(low, low, low, high, high, high)
        _check(_libc.capset(header, sets))
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def main(arguments: list[str]) -> None:
    request = json.loads(arguments[0])
    command = arguments[1:]
    try:
        if "uid" in request:
            _become(request["uid"], request["gid"], request["capability"])
        if request["death_signal"] is not None:
            # After the change of user, which clears this setting.
            _prctl(_PR_SET_PDEATHSIG, request["death_signal"])
            if os.getppid() != request["parent"]:
                sys.exit("launch: the parent has already ended")
        os.execv(command[0], command)  # noqa: S606, replaces this process
    except OSError as error:
        sys.exit(f"launch: cannot run {command[0]} as {request}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""What processes use, from Linux's `/proc`: CPU seconds, peak memory, and what others took.

CPU time comes in ticks of 10 ms. A process counts with all its descendants, and with those that
have ended and were waited for. Peak memory is the sum of each process's own peak resident set
(`VmHWM`): pages that they share count more than once, so it errs on the high side.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
AVAILABLE: Final = (_PROC / "stat").exists() and (_PROC / "self/stat").exists()
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


class Meter:
    """CPU seconds between its making and `read`, by the names of the processes given."""

    def __init__(self, **pids: int | None) -> None:
        self._pids = {name: pid for name, pid in pids.items() if pid is not None}
        self._pids["self"] = os.getpid()
        self._began = time.monotonic()
        self._before = self._look()
        self._busy_before = _busy_s()

    def read(self) -> dict[str, float]:
        """CPU seconds by name; `others`: all that is none of these, as a share of all cores."""
        used = {name: cpu - self._before[name] for name, cpu in self._look().items()}
        busy_s = _busy_s() - self._busy_before
        room_s = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        used["others"] = max(0.0, busy_s - sum(used.values())) / max(room_s, _TICK_S)
        return used

    def _look(self) -> dict[str, float]:
        parents = _parents()
        return {name: _cpu_s(_tree(pid, parents)) for name, pid in self._pids.items()}


def peak_bytes(pid: int) -> int:
    """The peak resident sets of a process and of its living descendants, summed up."""
    return sum(_peak_bytes(each) for each in _tree(pid, _parents()))


def now_bytes(pid: int) -> int:
    """The resident set of a process at the moment."""
    return _resident_bytes(pid, "VmRSS:")


def per_event(used: Mapping[str, float], events: int) -> dict[str, float]:
    """Microseconds of CPU an event, without our own; `others` stays a share."""
    return {
        name: value if name == "others" else value / events * 1e6
        for name, value in used.items()
        if name != "self"
    }


def _parents() -> dict[int, int]:
    """The parent of each process; empty where there is no `/proc`."""
    found = {}
    for entry in _PROC.glob("[0-9]*") if AVAILABLE else ():
        if fields := _stat(int(entry.name)):
            found[int(entry.name)] = int(fields[1])
    return found


def _tree(pid: int, parents: Mapping[int, int]) -> set[int]:
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    if pid == os.getpid():  # our children are counted under names of their own
        return {pid}
    return found


def _cpu_s(pids: set[int]) -> float:
    ticks = 0
    for pid in pids:
        if fields := _stat(pid):
            own = pid == os.getpid()
            ticks += sum(map(int, fields[11:13] if own else fields[11:15]))
    return ticks * _TICK_S


def _stat(pid: int) -> list[str]:
    """The fields of proc_pid_stat(5) from `state` on; empty when the process is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def _busy_s() -> float:
    """Of all cores together: user, nice, system, irq, softirq and steal."""
    if not AVAILABLE:
        return 0.0
    fields = (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) * _TICK_S


def _peak_bytes(pid: int) -> int:
    return _resident_bytes(pid, "VmHWM:")


def _resident_bytes(pid: int, kind: str) -> int:
    try:
        status = (_PROC / str(pid) / "status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) * 1024
    return 0

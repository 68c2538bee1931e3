"""What the figures were measured on, and how noisy it was."""

import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

_PACKAGES: Final = ("runfold", "psycopg", "redis", "hiredis", "msgspec", "zstandard", "sqlalchemy")


def describe(folder: Path | None) -> dict[str, Any]:
    """Hardware, versions, load, and how long this disk takes to sync a page."""
    where = folder or Path(tempfile.gettempdir())
    return {
        "cores": os.cpu_count(),
        "cpu": _first_value("/proc/cpuinfo", "model name"),
        "memory": _first_value("/proc/meminfo", "MemTotal"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_average": list(os.getloadavg()),
        "fdatasync_ms": _sync_ms(where),
        "python_loop_ms": loop_ms(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "commit": _commit(),
        "arguments": sys.argv[1:],
    }


def loop_ms() -> float:
    """Best of five: a fixed piece of Python, to compare machines and moments by."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        sum(number * number for number in range(300_000))
        best = min(best, time.perf_counter() - began)
    return best * 1000


def _sync_ms(folder: Path) -> float:
    """Median of 20 fdatasync(2), each after one page of 8 KiB was written."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(20):
            file.write(os.urandom(8192))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno()) if sys.platform == "darwin" else os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return median(times) * 1000


def _first_value(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    found = (line.partition(":")[2].strip() for line in lines if line.startswith(name))
    return next(found, None)


def _commit() -> str | None:
    """The checkout's, with a mark when it has changes; None outside of one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()

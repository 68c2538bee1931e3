"""py-spy on the worker, if it is installed: where a burst's time goes, as a speedscope file."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

_PATIENCE_S: Final = 120.0
_ATTACH_S: Final = 2.0


class Profile:
    """Records into `path`, to be opened at https://www.speedscope.app."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or (
            shutil.which("py-spy")
        )

    def start(self, pid: int) -> subprocess.Popen[bytes] | None:
        """Sample this process and its children until they end; None without py-spy."""
        if self._program is None:
            return None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        recording = subprocess.Popen(
            [
                self._program,
                *("record", "--pid", str(pid), "--output", str(self._path)),
                *("--format", "speedscope", "--rate", "200", "--subprocesses", "--nonblocking"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        time.sleep(_ATTACH_S)
        return recording

    def finish(self, recording: subprocess.Popen[bytes] | None) -> str:
        """The file, once the worker has ended; or why there is none."""
        if recording is None:
            return "py-spy is not installed: pip install py-spy"
        try:
            code = recording.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            recording.kill()
            recording.wait()
            return "py-spy did not finish"
        return str(self._path) if code == 0 else f"py-spy failed: exit code {code}"

"""The real `runfold worker`, as a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

RUNFOLD = Path(sys.executable).with_name("runfold")


class WorkerProcess:
    """`runfold worker` that folds, as an operator starts it."""

    def __init__(self, redis_url: str, database_url: str, log: Path, *, crash_at: str = "") -> None:
        self._log = log
        environment = os.environ | {
            "RUNFOLD_REDIS_URL": redis_url,
            "RUNFOLD_DATABASE_URL": database_url,
            "RUNFOLD_CRASH_AT": crash_at,
        }
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [RUNFOLD, "worker", "--role", "fold"], env=environment, stdout=file, stderr=file
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """As a crash would."""
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> int:
        """As an operator would; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def crashed(self, within_s: float = 60) -> None:
        """Wait until it has died at the point that it was started for."""
        status = self.process.wait(within_s)
        assert status == -signal.SIGKILL, f"ended with {status}:\n{self._log.read_text()}"

    def log(self) -> str:
        """What it has said, and what others with the same log have."""
        return self._log.read_text()

    def assert_lives(self) -> None:
        """It neither ended nor was ended."""
        assert self.process.poll() is None, self._log.read_text()


class StartWorker(Protocol):
    """The fixture `start_worker`."""

    def __call__(
        self, redis_url: str, database_url: str, *, crash_at: str = ""
    ) -> WorkerProcess: ...

"""What the acceptance tests share: real workers that end with their test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from acceptance.worker_processes import StartWorker, WorkerProcess


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Workers that end with the test."""
    started: list[WorkerProcess] = []

    def start(redis_url: str, database_url: str, *, crash_at: str = "") -> WorkerProcess:
        log = tmp_path / "worker.log"
        started.append(WorkerProcess(redis_url, database_url, log, crash_at=crash_at))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()

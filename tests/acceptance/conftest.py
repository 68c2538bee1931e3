"""What these tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from acceptance.worker_processes import StartWorker, WorkerProcess


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Workers that end with the test."""
    started: list[WorkerProcess] = []

    def start(redis_url: str, database_url: str) -> WorkerProcess:
        started.append(WorkerProcess(redis_url, database_url, tmp_path / "worker.log"))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()

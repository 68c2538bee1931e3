"""Children that end by `os._exit` or a kill right after their run: none of their runs is lost."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from conditions import wait_until
from runfold.protocol.frames import decode_frame
from runfold.spool.segment import inspect_segment

RUNS = 8
TESTS = Path(__file__).parent.parent


def environment(redis_url: str, tmp_path: Path) -> dict[str, str]:
    """Of a program that imports the tests' modules, with a spool of its own."""
    own = {"RUNFOLD_REDIS_URL": redis_url, "XDG_STATE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    return os.environ | own | {"PYTHONPATH": str(TESTS)}


def recorded(redis_url: str) -> Counter[str]:
    """How many events of each type are in the streams."""
    types: Counter[str] = Counter()
    with redis.Redis.from_url(redis_url) as client:
        for key in client.keys("runfold:*:events"):
            for _, fields in client.xrange(key):
                types.update(envelope.type for envelope, _ in decode_frame(fields).events)
    return types


ALL = {
    "started": 2 * RUNS,
    "node_started": RUNS,
    "node_finished": RUNS,
    "completed": 2 * RUNS,
}


def run_program(name: str, argument: str, redis_url: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TESTS / "acceptance" / name), argument],
        env=environment(redis_url, tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_terminated_pool_loses_no_run(redis_url: str, tmp_path: Path, method: str) -> None:
    """`with Pool()` kills its children as soon as the last result is there."""
    run_program("pool_program.py", method, redis_url, tmp_path)
    assert recorded(redis_url) == ALL


@pytest.mark.parametrize("imported", ["early", "late"])
def test_work_horses_of_rq_lose_no_run(redis_url: str, tmp_path: Path, imported: str) -> None:
    """Each job has a process, which ends by `os._exit`; `late`: it is forked before our import."""
    run_program("rq_program.py", imported, redis_url, tmp_path)
    assert recorded(redis_url) == ALL


@contextmanager
def celery_worker(redis_url: str, tmp_path: Path) -> Iterator[None]:
    """A worker whose children do one task each."""
    command = [sys.executable, "-m", "celery", "-A", "acceptance.prefork_tasks", "worker"]
    command += ["--pool=prefork", "--concurrency=2", "--max-tasks-per-child=1", "--loglevel=INFO"]
    with open(tmp_path / "celery.log", "w") as log:
        worker = subprocess.Popen(
            command, env=environment(redis_url, tmp_path), cwd=tmp_path, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(60)
        finally:
            worker.kill()
            worker.wait()


def test_celery_children_of_one_task_lose_no_run(redis_url: str, tmp_path: Path) -> None:
    """A child of the prefork pool ends by `os._exit` after its only task."""
    send = f"from acceptance.prefork_tasks import *\nfor n in range({RUNS}): "
    subprocess.run(
        [sys.executable, "-c", send + "record_for_celery.delay(n)"],
        env=environment(redis_url, tmp_path),
        check=True,
        timeout=120,
    )
    with celery_worker(redis_url, tmp_path):
        wait_until(lambda: recorded(redis_url) == ALL, what="all runs")


def test_a_child_that_redis_does_not_hear_spools_its_run(tmp_path: Path) -> None:
    """Without Redis the run is on disk, synced, before its block is left."""
    script = (
        "import os, sys\n"
        "from runfold import Recorder\n"
        "recorder = Recorder()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    with recorder.run('task'):\n"
        "        pass\n"
        "    os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        env=environment(f"unix://{tmp_path}/nothing.sock", tmp_path),
        check=True,
        timeout=120,
    )
    [segment] = (tmp_path / "runfold" / "spool").iterdir()
    assert inspect_segment(segment).events == 2

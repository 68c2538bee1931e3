"""`runfold worker --role jobs` as a process: stopped, killed, and never seen with a password."""

import itertools
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from acceptance.cli_processes import RUNFOLD, environ, runfold
from conditions import wait_until
from folded_events import fold_events, make_run_events
from runfold_storage.admin import Admin
from runfold_storage.jobs import Job, read_job

RUNS = 1800

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def database(database: psycopg.Connection, migrated_url: str) -> psycopg.Connection:
    """With runs in it."""
    fold_events(
        migrated_url, itertools.chain(*(make_run_events(f"r{n}", n / 10) for n in range(RUNS)))
    )
    return database


@pytest.fixture
def start(redis_url: str, migrated_url: str, tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str, **more: str) -> subprocess.Popen[bytes]:
        env = environ(RUNFOLD_REDIS_URL=redis_url, RUNFOLD_DATABASE_URL=migrated_url, **more)
        with (tmp_path / "worker.log").open("ab") as log:
            process = subprocess.Popen([*RUNFOLD, "worker", *words], env=env, stderr=log)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(30)


def progress_of(database: psycopg.Connection, job_id: UUID) -> int:
    job = read_job(database, job_id)
    assert job is not None
    return int((job.progress or {}).get("deleted", 0))


def is_done(database: psycopg.Connection, job_id: UUID) -> bool:
    job = read_job(database, job_id)
    return job is not None and job.status == "completed"


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_job_goes_on_with_the_next_worker(
    how: str, start: Start, database: psycopg.Connection, migrated_url: str
) -> None:
    """Killed after a page, or told to stop: what was done is not done again, the rest is."""
    job = Admin(migrated_url).delete_runs(everything=True)
    assert isinstance(job, Job)
    if how == "killed":
        first = start("--role", "jobs", RUNFOLD_CRASH_AT="after_progress")
        assert first.wait(60) == -signal.SIGKILL
    else:
        first = start("--role", "jobs")
        wait_until(lambda: progress_of(database, job.id), what="the first page")
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 0
    assert 0 < progress_of(database, job.id) < RUNS
    start("--role", "jobs")
    wait_until(lambda: is_done(database, job.id), what="the rest")
    found = read_job(database, job.id)
    assert found is not None
    assert found.result == {"deleted": RUNS}
    assert database.execute("SELECT count(*) FROM events").fetchone() == (0,)


def test_by_default_a_worker_does_both(
    start: Start, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """It folds, a process of its own does jobs; it is shown by `jobs`, and it ends with the worker.

    No command line has an address in it, which may have a password.
    """
    worker = start()
    env = environ(RUNFOLD_DATABASE_URL=migrated_url)
    answer = runfold("rebuild", "--background", env=env)
    assert answer.returncode == 0, answer
    job_id = UUID(answer.stdout.split()[1].rstrip(b":").decode())
    wait_until(lambda: is_done(database, job_id), what="the rebuild")
    shown = runfold("jobs", env=env)
    assert str(job_id).encode() in shown.stdout
    assert b"completed" in runfold("jobs", str(job_id), env=env).stdout
    assert runfold("jobs", "nonsense", env=env).returncode == 1

    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    assert len(children) == 1
    for pid in (str(worker.pid), *children):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert redis_url.encode() not in words
        assert migrated_url.encode() not in words
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert not Path(f"/proc/{children[0]}").exists()


def test_unclaimed_jobs_are_reported(
    database: psycopg.Connection, redis_url: str, migrated_url: str
) -> None:
    """By `doctor`, with what to do; and those that failed."""
    assert isinstance(Admin(migrated_url).delete_runs(everything=True), Job)
    env = environ(RUNFOLD_REDIS_URL=redis_url, RUNFOLD_DATABASE_URL=migrated_url)
    assert b"no worker runs any" not in runfold("doctor", env=env).stdout
    database.execute("UPDATE jobs SET created_at = now() - interval '5 minutes'")
    assert b"runfold worker --role jobs" in runfold("doctor", env=env).stdout
    database.execute("UPDATE jobs SET status = 'failed', finished_at = now()")
    assert b"1 jobs failed in the last week" in runfold("doctor", env=env).stdout

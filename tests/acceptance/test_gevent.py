"""Recorders in processes that gevent has patched, before and after they were made."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from acceptance.test_prefork_workers import environment, recorded
from conditions import wait_until

REQUESTS = 40


@contextmanager
def gunicorn(redis_url: str, tmp_path: Path, *options: str, **env: str) -> Iterator[str]:
    """Serve `web_app` with a gevent worker on a free port; leaving asks it to stop."""
    log_path = tmp_path / "gunicorn.log"
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", "127.0.0.1:0"]
    command += [*options, "acceptance.web_app:app"]
    with log_path.open("w") as log:
        server = subprocess.Popen(
            command,
            env=environment(redis_url, tmp_path) | env,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        listening = re.compile(r"Listening at: (\S+)")
        wait_until(lambda: listening.search(log_path.read_text()), what="gunicorn")
        found = listening.search(log_path.read_text())
        assert found is not None
        yield found[1]
        server.send_signal(signal.SIGTERM)
        assert server.wait(25) == 0, log_path.read_text()  # it kills workers after 30 s
        assert "SIGKILL" not in log_path.read_text()
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@pytest.mark.parametrize("path", ["run", "unflushed"])
@pytest.mark.parametrize(
    ("options", "env"),
    [
        ([], {}),
        (["--preload"], {}),
        (["--preload"], {"EMIT_FIRST": "1"}),
        (["--preload"], {"EMIT_FIRST": "1", "PATCHED_FIRST": "1"}),
    ],
    ids=["", "preload", "preload-emitted", "preload-patched"],
)
def test_workers_of_gunicorn_record_and_end(
    redis_url: str, tmp_path: Path, options: list[str], env: dict[str, str], path: str
) -> None:
    """Requests that come together are all answered and recorded; the worker ends when asked to."""
    with gunicorn(redis_url, tmp_path, *options, **env) as url, httpx.Client(timeout=30) as client:

        def get(number: int) -> str:
            return client.get(f"{url}/{path}/{number}").text

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(get, range(REQUESTS))) == ["recorded"] * REQUESTS
    expected = REQUESTS + ("EMIT_FIRST" in env)
    assert recorded(redis_url) == {"started": expected, "completed": expected}


PATCH = "from gevent import monkey; monkey.patch_all()\n"
IMPORT = "import time, gevent\nfrom runfold import Recorder\nrecorder = Recorder()\n"
EMIT = "with recorder.run('warm'):\n    pass\nassert recorder.flush(30).pending == 0\n"


@pytest.mark.parametrize(
    ("before", "runs"),
    [(PATCH + IMPORT, 0), (IMPORT + PATCH, 0), (IMPORT + EMIT + PATCH, 1)],
    ids=["before-import", "after-recorder", "after-event"],
)
def test_other_greenlets_run_while_the_sdk_waits(
    redis_url: str, tmp_path: Path, before: str, runs: int
) -> None:
    """Neither the flusher, which rests for half a minute, nor `flush` holds them up."""
    script = before + (
        "turns = 0\n"
        "def count():\n"
        "    global turns\n"
        "    while True:\n"
        "        turns += 1\n"
        "        gevent.sleep(0.001)\n"
        "gevent.spawn(count)\n"
        "with recorder.run('w'):\n"
        "    gevent.sleep(1.5)\n"  # the flusher rests by then
        "assert turns > 10, turns\n"
        "gevent.sleep(1.5)\n"
        "recorder._emitter._dispatcher._lock.acquire()\n"  # nothing can be sent meanwhile
        "with recorder.run('x'):\n    pass\n"
        "turns = 0\n"
        "assert recorder.flush(1).pending\n"
        "assert turns > 10, turns\n"
        "recorder._emitter._dispatcher._lock.release()\n"
        "assert recorder.flush(30).pending == 0\n"
        "with recorder.run('last'):\n    pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(redis_url, tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert recorded(redis_url) == {"started": 3 + runs, "completed": 3 + runs}


def test_a_greenlet_process_may_fork(redis_url: str, tmp_path: Path) -> None:
    """The child's events are its own, and go out through a thread of its own."""
    script = (
        PATCH + IMPORT + EMIT + "import os\n"
        "pid = os.fork()\n"
        "with recorder.run('both'):\n    gevent.sleep(0.01)\n"
        "if pid == 0:\n    os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(redis_url, tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert recorded(redis_url) == {"started": 3, "completed": 3}

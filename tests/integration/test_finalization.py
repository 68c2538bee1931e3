"""Events of the last moments of an interpreter: none hangs it, none is lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from integration.test_emitter import MakeRedis, read
from runfold.spool.segment import inspect_segment

IMPORT = "import os, sys, threading, time\nfrom runfold import *\nrecorder = Recorder()\n"
WARM = "recorder.emit(Logged(run='r', text='first'))\nassert recorder.flush(30).sent == 1\n"
FINALIZER = (
    "class Last:\n"
    "    def __init__(self):\n"
    "        self.recorder, self.event = recorder, Logged(run='r', text='last')\n"
    "    def __del__(self):\n"
    "        assert sys.is_finalizing()\n"
    "        self.recorder.emit(self.event)\n"
    "sys.modules['last'] = Last()\n"  # where no frame of a dead thread keeps it
)
LATE_HANDLER = (
    "import atexit\n"
    "def end():\n"
    "    recorder.emit(Logged(run='r', text='last'))\n"
    "atexit.register(end)\n"  # before our own, so it is called after that
)
LATE_RECORDER = LATE_HANDLER.replace("recorder.emit", "Recorder().emit")
DAEMON = (
    "import atexit, threading, time\n"
    "exiting, emitted = threading.Event(), threading.Event()\n"
    "def work():\n"
    "    exiting.wait()\n"
    "    recorder.emit(Logged(run='r', text='last'))\n"
    "    emitted.set()\n"
    "    while True:\n"
    "        recorder.emit(Heartbeat(run='beats'))\n"
    "threading.Thread(target=work, daemon=True).start()\n"
    "def end():\n"
    "    exiting.set()\n"
    "    assert emitted.wait(30)\n"
    "atexit.register(end)\n"
)


def texts(url: str, spool: Path) -> list[str]:
    """Return the texts of the logged events in the streams, and the number of spooled events."""
    sent = [e.body.decode() for e in read(url) if e.type == "logged"]
    folder = spool / "runfold" / "spool"
    spooled = sum(inspect_segment(path).events for path in folder.glob("*.spool"))
    return [*(text.split('"')[3] for text in sent), *["spooled"] * spooled]


def run(url: str, state: Path, script: str) -> None:
    """Run a program to its end; a hang fails the test."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"RUNFOLD_REDIS_URL": url, "XDG_STATE_HOME": str(state)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (IMPORT + WARM + FINALIZER, ["first", "last"]),
        (LATE_HANDLER + IMPORT, ["last"]),
        (LATE_HANDLER + IMPORT + WARM, ["first", "last"]),
        (LATE_RECORDER + IMPORT, ["last"]),
    ],
    ids=["finalizer", "late-handler-first", "late-handler", "late-recorder"],
)
def test_an_event_of_the_last_moment_is_sent(
    redis_url: str, tmp_path: Path, script: str, expected: list[str]
) -> None:
    """In a finalizer, or in an exit handler that runs after ours, the caller sends."""
    run(redis_url, tmp_path, script)
    assert texts(redis_url, tmp_path) == expected


def test_a_first_event_of_a_finalizer_is_spooled(redis_url: str, tmp_path: Path) -> None:
    """The interpreter imports nothing at this point, so no connection can be made."""
    run(redis_url, tmp_path, IMPORT + FINALIZER)
    assert texts(redis_url, tmp_path) == ["spooled"]


@pytest.mark.parametrize("warm", ["", WARM], ids=["first", "warm"])
def test_a_daemon_thread_may_emit_while_the_process_ends(
    redis_url: str, tmp_path: Path, warm: str
) -> None:
    """It is stopped at any point, which blocks neither the exit nor a finalizer."""
    run(redis_url, tmp_path, DAEMON + IMPORT + warm + FINALIZER)
    found = texts(redis_url, tmp_path)
    assert found.count("last") + found.count("spooled") >= 2


def test_a_finalizer_without_redis_ends_in_the_spool(make_redis: MakeRedis, tmp_path: Path) -> None:
    """Events for which only the disk is left are written to it one by one."""
    server = make_redis()
    server.stop()
    run(server.url, tmp_path, IMPORT + FINALIZER + "recorder.emit(Heartbeat(run='r'))\n")
    folder = tmp_path / "runfold" / "spool"
    assert sum(inspect_segment(path).events for path in folder.glob("*.spool")) == 2


def test_a_flusher_that_died_is_replaced(redis_url: str, tmp_path: Path) -> None:
    """`flush` does not wait for a dead flusher, and later events start another one."""
    script = (
        IMPORT
        + WARM
        + (
            "threading.excepthook = sys.unraisablehook = lambda *_: None\n"
            "emitter = recorder._emitter\n"
            "work, thread = emitter._run_once, emitter._thread\n"
            "def die():\n"
            "    emitter._run_once = work\n"
            "    raise SystemExit\n"
            "emitter._run_once = die\n"
            "recorder.emit(Logged(run='r', text='last'))\n"
            "assert recorder.flush(3600).sent == 2\n"
            "recorder.emit(Logged(run='r', text='again'))\n"
            "assert recorder.flush(3600).sent == 3\n"
            "assert emitter._thread is not thread\n"
        )
    )
    run(redis_url, tmp_path, script)
    assert texts(redis_url, tmp_path) == ["first", "last", "again"]


def test_a_child_that_a_thread_forked_ends_with_its_only_thread(
    redis_url: str, tmp_path: Path
) -> None:
    """The flusher sends what is left and then lets the process end, as its parent waits for it."""
    script = (
        IMPORT
        + WARM
        + (
            "def work():\n"
            "    pid = os.fork()\n"
            "    if pid == 0:\n"
            "        recorder.emit(Logged(run='r', text='last'))\n"
            "    else:\n"
            "        assert os.waitpid(pid, 0)[1] == 0\n"
            "thread = threading.Thread(target=work)\n"
            "thread.start()\n"
            "thread.join()\n"
        )
    )
    run(redis_url, tmp_path, script)
    assert texts(redis_url, tmp_path) == ["first", "last"]

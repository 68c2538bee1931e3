"""The emitter against a real Redis: outages, forks, exits, threads and tasks."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
import redis

from runfold import Logged, Recorder
from runfold.protocol.codec import Envelope
from runfold.protocol.frames import decode_frame
from runfold_stack.servers.redis_server import RedisServer

MakeRedis = Callable[..., RedisServer]


def read(url: str) -> list[Envelope]:
    """Every event in the streams, in the order of its stream."""
    found = []
    with redis.Redis.from_url(url) as client:
        for key in sorted(client.keys("runfold:*:events")):
            for _, fields in client.xrange(key):
                frame = decode_frame(fields)
                assert frame.broken == []
                found += [envelope for envelope, _ in frame.events]
    return found


def types(url: str) -> list[str]:
    return [envelope.type for envelope in read(url)]


def run_script(url: str, script: str, *, returncode: int = 0) -> str:
    """Run a program that uses the SDK, with warnings as errors; return its stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "from runfold import *\n" + script],
        env=os.environ | {"RUNFOLD_REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == returncode, done.stderr
    return done.stderr


def first_seen(envelopes: list[Envelope], run: str) -> list[int]:
    """The ids of a run's events in the order in which each came first."""
    return list(dict.fromkeys(envelope.id for envelope in envelopes if envelope.run == run))


def test_runs_arrive(redis_url: str) -> None:
    """The plain case: a run with a node is in its stream after a flush."""
    with Recorder(redis_url) as recorder:
        with recorder.run("w") as run, run.node("n") as node:
            node.outputs = {"rows": 1}
        assert recorder.flush(30).sent == 4
    assert [(e.type, e.run, e.id) for e in read(redis_url)] == [
        ("started", run.id, 0),
        ("node_started", run.id, 1),
        ("node_finished", run.id, 2),
        ("completed", run.id, 3),
    ]


@pytest.mark.parametrize("outage", ["kill", "stop"])
def test_a_restart_of_redis_loses_and_reorders_nothing(make_redis: MakeRedis, outage: str) -> None:
    """Each event arrives at least once, in the order of its run, though Redis goes away."""
    server = make_redis()
    down, up = threading.Event(), threading.Event()
    with Recorder(server.url, heartbeat_s=0) as recorder:
        runs = [recorder.run("w").start() for _ in range(10)]

        def emit() -> None:
            for number in range(9000):
                if number == 3000:
                    down.set()
                if number == 6000:
                    assert up.wait(60)
                runs[number % 10].log(str(number))

        emitting = threading.Thread(target=emit)
        emitting.start()
        assert down.wait(60)
        getattr(server, outage)()
        server.start()
        up.set()
        emitting.join()
        flushed = recorder.flush(60)
    assert (flushed.pending, flushed.dropped) == (0, 0)
    envelopes = read(server.url)
    for run in runs:
        assert first_seen(envelopes, run.id) == list(range(901))


def test_redis_may_come_later(make_redis: MakeRedis) -> None:
    """With Redis away from the start nothing raises, and everything is sent once it is there."""
    server = make_redis()
    server.stop()
    with Recorder(server.url) as recorder:
        for _ in range(100):
            with recorder.run("w") as run, run.node("n"):
                pass
        waiting = recorder.flush(60)
        assert (waiting.sent, waiting.pending, waiting.spooled) == (0, 0, 400)
        server.start()
        assert recorder.flush(60).sent == 400
    assert len(read(server.url)) == 400


def test_a_full_redis_is_waited_for(make_redis: MakeRedis) -> None:
    """Refused for lack of memory, events wait and arrive when there is room again."""
    server = make_redis()
    with Recorder(server.url) as recorder, redis.Redis.from_url(server.url) as client:
        run = recorder.run("w").start()
        assert recorder.flush(30).pending == 0
        client.set("ballast", bytes(4 * 1024 * 1024))
        client.config_set("maxmemory", "2mb")
        for number in range(10):
            run.log(str(number))
        refused = recorder.flush(0.2)
        assert refused.pending + refused.spooled == 10
        client.config_set("maxmemory", "0")
        assert recorder.flush(60).sent == 11
    assert first_seen(read(server.url), run.id) == list(range(11))


def test_a_read_only_redis_is_waited_for(make_redis: MakeRedis) -> None:
    """A primary that became a replica accepts nothing until it is a primary again."""
    server = make_redis()
    with Recorder(server.url) as recorder, redis.Redis.from_url(server.url) as client:
        run = recorder.run("w").start()
        assert recorder.flush(30).pending == 0
        client.replicaof("127.0.0.1", "1")
        run.log("while read-only")
        refused = recorder.flush(0.2)
        assert refused.pending + refused.spooled == 1
        client.replicaof("NO", "ONE")
        assert recorder.flush(60).sent == 2
    assert first_seen(read(server.url), run.id) == [0, 1]


def test_two_threads_share_a_recorder(redis_url: str) -> None:
    """Runs of concurrent threads arrive whole, each in its order."""
    runs = []
    with Recorder(redis_url) as recorder:

        def work() -> None:
            for _ in range(100):
                with recorder.run("w") as run, run.node("n"):
                    runs.append(run.id)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert recorder.flush(30).sent == 800
    envelopes = read(redis_url)
    for run_id in runs:
        assert [e.id for e in envelopes if e.run == run_id] == [0, 1, 2, 3]


def test_a_cancelled_task_cancels_its_run(redis_url: str) -> None:
    """Cancellation ends node and run, and reaches the task."""

    async def work(recorder: Recorder, entered: asyncio.Event) -> None:
        async with recorder.run("w") as run, run.node("n"):
            entered.set()
            await asyncio.Event().wait()

    async def main(recorder: Recorder) -> None:
        entered = asyncio.Event()
        task = asyncio.create_task(work(recorder, entered))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with Recorder(redis_url) as recorder:
        asyncio.run(main(recorder))
    envelopes = read(redis_url)
    assert [e.type for e in envelopes] == [
        "started",
        "node_started",
        "node_finished",
        "cancelled",
    ]
    assert b'"status":"cancelled"' in envelopes[2].body


@pytest.mark.parametrize(
    ("end", "returncode", "last"),
    [
        ("", 0, "completed"),
        ("raise ValueError('x')", 1, "failed"),
        ("import sys; sys.exit(3)", 3, "failed"),
        ("import sys; sys.exit()", 0, "completed"),
    ],
)
def test_what_is_buffered_is_sent_at_exit(
    redis_url: str, end: str, returncode: int, last: str
) -> None:
    """However a program ends, short of a kill, its last events arrive."""
    script = f"with Recorder().run('w') as run:\n    run.log('x')\n    {end or 'pass'}\n"
    run_script(redis_url, script, returncode=returncode)
    assert types(redis_url) == ["started", "logged", last]


def test_an_interrupt_cancels_the_run(redis_url: str) -> None:
    """Ctrl-C ends the run as cancelled, and that is sent as well."""
    script = (
        "import os, signal\n"
        "with Recorder().run('w') as run:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    signal.pause()\n"
    )
    run_script(redis_url, script, returncode=-signal.SIGINT)
    assert types(redis_url) == ["started", "cancelled"]


def test_signal_handlers_may_record(redis_url: str) -> None:
    """An event from a handler that interrupts `emit` causes no deadlock."""
    script = (
        "import signal\n"
        "recorder = Recorder()\n"
        "handled = 0\n"
        "def handle(*_):\n"
        "    global handled\n"
        "    handled += 1\n"
        "    recorder.emit(Heartbeat(run='r'))\n"
        "signal.signal(signal.SIGALRM, handle)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)\n"
        "emitted = 0\n"
        "while handled < 200:\n"
        "    emitted += 1\n"
        "    recorder.emit(Heartbeat(run='r'))\n"
        "    if emitted % 1000 == 0:\n"
        "        recorder.flush(30)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "flushed = recorder.flush(30)\n"
        "assert flushed == Flushed(sent=emitted + handled, pending=0, dropped=0), flushed\n"
    )
    run_script(redis_url, script)
    ids = [e.id for e in read(redis_url)]
    assert len(set(ids)) == len(ids) > 200


def test_events_of_threads_that_outlive_the_main_program_are_sent(redis_url: str) -> None:
    """A thread that is still working when the main one ends is waited for, then flushed."""
    script = (
        "import threading\n"
        "recorder = Recorder()\n"
        "main_ended = threading.main_thread().join\n"
        "def work():\n"
        "    main_ended()\n"
        "    recorder.emit(Logged(run='r', text='late'))\n"
        "threading.Thread(target=work).start()\n"
    )
    run_script(redis_url, script)
    assert types(redis_url) == ["logged"]


def test_exit_handlers_may_still_record(redis_url: str) -> None:
    """Events of handlers before and after the SDK's own are sent, with or without a thread."""
    script = (
        "import atexit\n"
        "recorder = Recorder()\n"
        "atexit.register(lambda: recorder.emit(Logged(run='r', text='first')))\n"
    )
    late = (
        "import atexit, sys\n"
        "def last():\n"
        "    sys.modules['runfold']\n"
        "    recorder.emit(Logged(run='r', text='last'))\n"
        "atexit.register(last)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", late + "from runfold import *\n" + script],
        env=os.environ | {"RUNFOLD_REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [e.body for e in read(redis_url)] == [b'{"text":"first"}', b'{"text":"last"}']


def test_exiting_without_redis_takes_bounded_time_and_is_logged(make_redis: MakeRedis) -> None:
    """The end of a program waits for the set time, and logs where the events are."""
    server = make_redis()
    server.stop()
    script = "recorder = Recorder(exit_flush_s=0.1)\nwith recorder.run('w'):\n    pass\n"
    log = run_script(server.url, script)
    assert "2 events are in the spool" in log
    log = run_script(server.url, script.replace("0.1", "0.1, backpressure='block'"))
    assert "2 events could not be sent and are lost" in log


@pytest.mark.parametrize("url", ["", "redis://localhost:1/0", "rediss://localhost:1/0"])
def test_the_flusher_imports_nothing(redis_url: str, url: str) -> None:
    """A fork during an import in another thread would leave the child with half a module."""
    script = (
        "import sys\n"
        f"recorder = Recorder({url or redis_url!r}, exit_flush_s=0)\n"
        "before = set(sys.modules)\n"
        "with recorder.run('w', inputs={'a': '\\ud800'}):\n    pass\n"
        "recorder.flush(0.2)\n"
        "assert set(sys.modules) == before, set(sys.modules) - before\n"
    )
    run_script(redis_url, script)


def test_a_forked_child_writes_under_a_number_of_its_own(redis_url: str) -> None:
    """Parent and child both write to the run; nothing is sent twice or under the same number."""
    script = (
        "import os\n"
        "recorder = Recorder()\n"
        "with recorder.run('w', inputs={}) as run:\n"
        "    run.log('before')\n"  # perhaps still in the parent's buffer when it forks
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        with run.node('child'):\n"
        "            pass\n"
        "        assert recorder.flush(30) == Flushed(sent=2, pending=0, dropped=0)\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(pid, 0)[1] == 0\n"
        "    run.log('after')\n"
    )
    run_script(redis_url, script)
    envelopes = read(redis_url)
    assert len({e.run for e in envelopes}) == 1
    own = [e.id for e in envelopes if e.id >> 32 == 0]
    childs = [e for e in envelopes if e.id >> 32]
    assert own == [0, 1, 2, 3]
    assert [e.type for e in childs] == ["node_started", "node_finished"]


def test_a_forked_child_that_exits_ends_nothing_of_its_parent(redis_url: str) -> None:
    """`sys.exit` in the child runs through the parent's block without ending the run."""
    script = (
        "import os, sys\n"
        "recorder = Recorder()\n"
        "with recorder.run('w') as run:\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        run.log('child')\n"
        "        sys.exit(0)\n"
        "    assert os.waitpid(pid, 0)[1] == 0\n"
    )
    run_script(redis_url, script)
    assert sorted(types(redis_url)) == ["completed", "logged", "started"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_events_of_multiprocessing_children_are_sent(
    redis_url: str, method: str, tmp_path: os.PathLike[str]
) -> None:
    """A child process joins the run of its parent and is flushed when it ends."""
    program = os.path.join(tmp_path, "program.py")
    with open(program, "w") as file:
        file.write(
            "import multiprocessing\n"
            "from runfold import Recorder\n"
            "recorder = Recorder()\n"
            "def work(run_id, number):\n"
            "    with recorder.join(run_id) as run, run.node(f'n{number}'):\n"
            "        pass\n"
            "if __name__ == '__main__':\n"
            f"    context = multiprocessing.get_context({method!r})\n"
            "    with recorder.run('w') as run:\n"
            "        children = [\n"
            "            context.Process(target=work, args=(run.id, n)) for n in range(2)\n"
            "        ]\n"
            "        for child in children:\n"
            "            child.start()\n"
            "        for child in children:\n"
            "            child.join()\n"
            "            assert child.exitcode == 0\n"
        )
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        env=os.environ | {"RUNFOLD_REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    envelopes = read(redis_url)
    assert len({(e.run, e.id) for e in envelopes}) == len(envelopes) == 6
    assert len({e.run for e in envelopes}) == 1
    assert len({e.id >> 32 for e in envelopes}) == 3


def test_an_open_run_gives_signs_of_life(redis_url: str) -> None:
    """While a run is open the flusher sends heartbeats, with no event of the runner's."""
    with (
        Recorder(redis_url, heartbeat_s=0.02) as recorder,
        recorder.run("w"),
        redis.Redis.from_url(redis_url) as client,
    ):
        recorder.flush(30)
        (key,) = client.keys("runfold:*:events")
        seen: list[str] = []
        position = b"0"
        while "heartbeat" not in seen:
            ((_, entries),) = client.xread({key: position}, block=30_000)
            for entry, fields in entries:
                position = entry
                seen += [envelope.type for envelope, _ in decode_frame(fields).events]
    assert seen[0] == "started"


def test_one_deployment_has_one_number_of_shards(redis_url: str) -> None:
    """A second recorder without a setting follows the first; events of a run stay together."""
    with Recorder(redis_url, shards=3) as first, Recorder(redis_url) as second:
        first.emit(Logged(run="r", text="1"))
        first.flush(30)
        second.emit(Logged(run="r", text="2"))
        second.flush(30)
    with redis.Redis.from_url(redis_url) as client:
        assert len(client.keys("runfold:*:events")) == 1
        assert client.get("runfold:shards") == b"3"

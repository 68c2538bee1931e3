"""`runfold drain` and the doctor's checks of the spool, with the spools of real runners."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from acceptance.cli_processes import environ, recorded_events, runfold
from runfold.protocol.streams import connect, dropped_events
from runfold_stack.servers.redis_server import RedisServer

MakeRedis = Callable[..., RedisServer]

RUNNER = """
import os
from runfold import Logged; from runfold import Recorder
recorder = Recorder(heartbeat_s=0)
for number in range(5):
    for each in range(20):
        recorder.emit(Logged(run="left", id=20 * number + each, text=os.urandom(100).hex()))
    assert recorder.flush(0.1).pending == 0
os._exit(0)
"""

DROPPER = """
from runfold import Logged; from runfold import Recorder
recorder = Recorder(
    heartbeat_s=0, buffer_events=10, buffer_wait_s=0.1, backpressure="drop_oldest", exit_flush_s=0
)
for number in range(40):
    recorder.emit(Logged(run="dropped", id=number, text="x"))
"""
"""Thirty are dropped, and ten are lost with the process."""


class Machine:
    """A Redis that is away, and a folder for what runners spool meanwhile."""

    def __init__(self, make_redis: MakeRedis, folder: Path) -> None:
        self.server = make_redis()
        self.spool = folder / "spool"
        self.env = environ(
            RUNFOLD_HOME=str(folder / "home"),
            RUNFOLD_SPOOL_DIR=str(self.spool),
            RUNFOLD_REDIS_URL=self.server.url,
        )

    def spool_a_hundred(self) -> None:
        """A runner that cannot send, and has ended."""
        self.server.stop()
        subprocess.run([sys.executable, "-c", RUNNER], env=self.env, check=True, timeout=60)
        self.server.start()

    def drain(self, exit_code: int = 0, **settings: str) -> Any:
        """What `runfold drain` reports."""
        answer = runfold("drain", "--json", env=self.env | settings)
        assert answer.returncode == exit_code, answer.stderr.decode()
        return json.loads(answer.stdout)

    def doctor(self, **settings: str) -> list[tuple[str, str, str]]:
        """What `runfold doctor` finds of the spool: level, finding, remedy."""
        answer = runfold("doctor", "--json", env=self.env | settings)
        return [
            (one["level"], one["found"], one.get("remedy", ""))
            for one in json.loads(answer.stdout)["findings"]
            if one["check"] == "spool"
        ]


def test_what_a_dead_runner_left_is_found_and_sent(make_redis: MakeRedis, tmp_path: Path) -> None:
    """The doctor names number, folder and remedy; draining sends everything, once."""
    machine = Machine(make_redis, tmp_path)
    assert machine.doctor() == [("ok", f"no events wait in {machine.spool}", "")]
    machine.spool_a_hundred()
    machine.spool_a_hundred()
    ((level, found, remedy),) = machine.doctor()
    assert level == "warn"
    assert found.startswith(f"200 events wait in {machine.spool} for this Redis since 20")
    assert "runfold drain" in remedy

    report = machine.drain()
    assert (report["sent"], report["left"], report["for_others"]) == (200, 0, 0)
    assert sorted(event["id"] for event in recorded_events(machine.server.url)) == sorted(
        2 * list(range(100))
    )
    assert list(machine.spool.iterdir()) == []
    assert machine.drain()["sent"] == 0


def test_events_for_another_redis_stay(make_redis: MakeRedis, tmp_path: Path) -> None:
    """The command reports them, with the setting that sends them."""
    machine, other = Machine(make_redis, tmp_path), make_redis()
    machine.spool_a_hundred()
    assert machine.drain(RUNFOLD_REDIS_URL=other.url)["for_others"] == 100
    ((level, found, remedy),) = machine.doctor(RUNFOLD_REDIS_URL=other.url)
    assert level == "warn"
    assert "100 events wait" in found
    assert "another Redis" in found
    assert "RUNFOLD_REDIS_URL" in remedy
    assert machine.drain()["sent"] == 100


def test_without_redis_nothing_is_lost(make_redis: MakeRedis, tmp_path: Path) -> None:
    """The exit code shows that Redis is unavailable; all events stay."""
    machine = Machine(make_redis, tmp_path)
    machine.spool_a_hundred()
    machine.server.stop()
    assert runfold("drain", env=machine.env).returncode == 3
    machine.server.start()
    assert machine.drain()["sent"] == 100


def test_a_runner_that_lives_sends_its_own(make_redis: MakeRedis, tmp_path: Path) -> None:
    """Its segments are recognized, and left alone."""
    machine = Machine(make_redis, tmp_path)
    machine.server.stop()
    program = RUNNER.replace("os._exit(0)", "print(flush=True); input()")
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=machine.env | {"RUNFOLD_REDIS_URL": machine.server.url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as runner:
        assert runner.stdout is not None
        assert runner.stdin is not None
        runner.stdout.readline()
        ((_, found, remedy),) = machine.doctor()
        assert "100 events wait" in found
        assert "100 of them from live runners" in found
        assert "the live runners then send them" in remedy
        machine.server.start()
        runner.stdin.close()
    assert machine.drain()["in_use"] == 0
    assert {event["id"] for event in recorded_events(machine.server.url)} == set(range(100))


def test_damaged_segments_are_named_and_set_aside(make_redis: MakeRedis, tmp_path: Path) -> None:
    """What can be read of them is sent; the rest is kept for a person."""
    machine = Machine(make_redis, tmp_path)
    machine.spool_a_hundred()
    (segment,) = machine.spool.iterdir()
    with segment.open("r+b") as file:
        file.seek(60)
        file.write(bytes(20))
    report = machine.drain()
    assert 0 < report["sent"] < 100
    (aside,) = machine.spool.iterdir()
    assert report["damaged"] == [str(aside)]
    ((level, found, remedy),) = machine.doctor()
    assert level == "warn"
    assert aside.name in found
    assert "check the disk" in remedy


def test_a_spool_at_its_cap_is_a_failure(make_redis: MakeRedis, tmp_path: Path) -> None:
    """No runner could begin another segment."""
    machine = Machine(make_redis, tmp_path)
    machine.spool_a_hundred()
    (segment,) = machine.spool.iterdir()
    os.truncate(segment, 900_000)
    found = machine.doctor(RUNFOLD_SPOOL_BYTES=str(2**20))
    assert [level for level, text, _ in found if "at its cap: 1 MiB of 1 MiB" in text] == ["fail"]


def test_drops_of_a_dead_runner_are_found_and_reported(
    make_redis: MakeRedis, tmp_path: Path
) -> None:
    """The doctor names their number until draining has reported it to Redis, once."""
    machine = Machine(make_redis, tmp_path)
    machine.server.stop()
    subprocess.run([sys.executable, "-c", DROPPER], env=machine.env, check=True, timeout=60)
    machine.server.start()
    ((level, found, remedy),) = machine.doctor()
    assert level == "warn"
    assert found.startswith("40 events for this Redis were dropped")
    assert "runfold drain" in remedy

    assert [machine.drain()["dropped"] for _ in range(2)] == [40, 0]
    with connect(machine.server.url) as client:
        assert dropped_events(client) == 40
    assert [level for level, _, _ in machine.doctor()] == ["ok"]

"""A runner dies at each step of its emitter and spool; what was safe is folded, each event once."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg
import pytest
import redis

from conditions import is_folded, run_fold_worker, wait_until
from event_histories import generate_runs, normalize_event
from frame_delivery import SHARDS, connect_to
from oracle import Event, project, to_envelope
from runfold import Heartbeat, Recorder, crash_points
from runfold.protocol.codec import encode_event
from runfold.protocol.frames import decode_frame
from runfold.protocol.streams import agree_on_shards, connect, stream_key
from runfold_stack.servers.redis_server import RedisServer
from stream_frames import read_frames
from table_reader import read_projection

SOURCES = Path(crash_points.__file__).parent.rglob("*.py")
POINTS = re.findall(r'crash_point\(\s*"(\w+)"', "".join(path.read_text() for path in SOURCES))
assert len(set(POINTS)) == len(POINTS) == 16

PROGRAM = Path(__file__).with_name("runner_program.py")

EventRef = tuple[str, int]


@pytest.fixture
def server(make_redis: Callable[..., RedisServer]) -> RedisServer:
    """Of this test's own, since it is filled up on purpose."""
    return make_redis()


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that every runner of the test spools to."""
    monkeypatch.setenv("RUNFOLD_SPOOL_DIR", str(tmp_path / "spool"))
    return tmp_path / "spool"


class RunnerProgram:
    """`runner_program.py` with events of its own."""

    def __init__(self, folder: Path, name: str, seed: int) -> None:
        runs = generate_runs(seed, 150)
        self.events: list[Event] = [
            normalize_event(event | {"run": f"{name} {event['run']}"})
            for run in runs
            for event in run
        ]
        self._file = folder / f"{name}.ndjson"
        lines = [encode_event(to_envelope(event)) for event in self.events]
        self._file.write_bytes(b"\n".join(lines))

    def run(self, redis_url: str, crash_at: str = "") -> Sequence[Event]:
        """Run it until it dies or ends; returns the events that were reported as safe."""
        done = subprocess.run(
            [sys.executable, "-W", "error", PROGRAM, self._file],
            env=os.environ | {"RUNFOLD_REDIS_URL": redis_url, "RUNFOLD_CRASH_AT": crash_at},
            capture_output=True,
            text=True,
            timeout=120,
        )
        expected = -signal.SIGKILL if crash_at else 0
        assert done.returncode == expected, f"{crash_at}: {done.returncode}\n{done.stderr}"
        with redis.Redis.from_url(redis_url) as client:
            client.config_set("maxmemory", "0")
        reported = done.stdout.split()
        return self.events[: int(reported[-1]) if reported else 0]


@pytest.mark.parametrize("point", POINTS)
def test_a_runner_that_dies_there(
    point: str, server: RedisServer, spool: Path, tmp_path: Path, migrated_url: str
) -> None:
    """What was reported as safe is folded once, and so is all of it when it is sent again."""
    torn = RunnerProgram(tmp_path, "torn", 1)
    crashed = RunnerProgram(tmp_path, "crashed", 2)
    sent = {ref_of(event): event for event in [*torn.events, *crashed.events]}
    with connect(server.url) as client, connect_to(migrated_url) as database:
        agree_on_shards(client, SHARDS)
        safe = [*torn.run(server.url, "in_spool_write"), *crashed.run(server.url, point)]
        send_what_is_left(server.url, spool)
        arrived = arrivals(client)
        assert set(map(ref_of, safe)) <= set(arrived)
        for run in {run for run, _ in arrived}:
            of_run = [event_id for name, event_id in arrived if name == run]
            assert of_run == sorted(of_run), "in the order of its run"
        with run_fold_worker(server.url, migrated_url, SHARDS):
            assert_folded(client, database, [sent[ref] for ref in arrived])

            torn.run(server.url)
            crashed.run(server.url)

            assert_folded(client, database, list(sent.values()))


def test_a_runner_that_nothing_happens_to(
    server: RedisServer, spool: Path, tmp_path: Path, migrated_url: str
) -> None:
    """The same program sends everything by itself, and nothing twice."""
    whole = RunnerProgram(tmp_path, "whole", 3)
    with connect(server.url) as client, connect_to(migrated_url) as database:
        agree_on_shards(client, SHARDS)
        assert whole.run(server.url) == whole.events
        assert os.listdir(spool) == []
        assert len(arrivals(client, repeated=False)) == len(whole.events)
        with run_fold_worker(server.url, migrated_url, SHARDS):
            assert_folded(client, database, whole.events)


def send_what_is_left(redis_url: str, spool: Path) -> None:
    """As a later process does, that has nothing but a sign of life to send."""
    with Recorder(redis_url, heartbeat_s=0) as recorder:
        recorder.emit(Heartbeat(run="later"))
        wait_until(lambda: not spool.exists() or not os.listdir(spool), what=f"an empty {spool}")
        recorder.flush(30)


def arrivals(client: redis.Redis, *, repeated: bool = True) -> list[EventRef]:
    """The events in the streams, each where it came first."""
    refs: list[EventRef] = []
    for shard in range(SHARDS):
        for _, fields in read_frames(client, stream_key(shard)):
            frame = decode_frame(fields)
            assert frame.broken == []
            refs += [(one.run, one.id) for one, _ in frame.events if one.run != "later"]
    assert repeated or len(refs) == len(set(refs))
    return list(dict.fromkeys(refs))


def assert_folded(
    client: redis.Redis, database: psycopg.Connection, events: Sequence[Event]
) -> None:
    """Rows, statistics and ledger are those of the definition."""
    wait_until(lambda: is_folded(client, database), what="everything to be folded")
    assert read_projection(database) == project(events, SHARDS)


def ref_of(event: Event) -> EventRef:
    return event["run"], event["id"]

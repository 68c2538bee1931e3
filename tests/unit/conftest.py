"""What the SDK's unit tests share: a recorder that writes to a Redis in memory."""

from collections.abc import Iterator
from pathlib import Path

import fakeredis
import pytest

from recorded_events import Recorded
from runfold import Event, Node, Recorder, Run
from runfold.protocol.codec import Envelope
from runfold.protocol.frames import decode_frame
from stream_frames import read_frames


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's own settings and spool must not reach a unit test."""
    for name in (
        "REDIS_URL",
        "SHARDS",
        "PROJECT",
        "REDACT_KEYS",
        "BUFFER_EVENTS",
        "BUFFER_BYTES",
        "HEARTBEAT_S",
        "EXIT_FLUSH_S",
        "BACKPRESSURE",
        "SPOOL_DIR",
        "SPOOL_BYTES",
        "MAX_FUTURE_S",
    ):
        monkeypatch.delenv(f"RUNFOLD_{name}", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(autouse=True)
def no_run() -> None:
    """Runs that a test left open, or left in another context, are none of the next one's."""
    Run._current.set(None)
    Node._current.set(None)


@pytest.fixture
def fake_server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def recorder(fake_server: fakeredis.FakeServer) -> Iterator[Recorder]:
    def connect(_: str) -> fakeredis.FakeRedis:
        return fakeredis.FakeRedis(server=fake_server)

    recorder = Recorder(connect=connect, heartbeat_s=0)
    yield recorder
    recorder.close(5)


@pytest.fixture
def recorded(recorder: Recorder, fake_server: fakeredis.FakeServer) -> Recorded:
    """Everything that the recorder has sent so far, in the order of (at, id)."""

    def read() -> list[tuple[Envelope, Event]]:
        assert recorder.flush(10).pending == 0
        client = fakeredis.FakeRedis(server=fake_server)
        found = []
        for key in client.keys("runfold:*:events"):
            for _, fields in read_frames(client, key):
                frame = decode_frame(fields)
                assert frame.broken == []
                found += frame.events
        return sorted(found, key=lambda pair: (pair[0].at_us, pair[0].id))

    return read

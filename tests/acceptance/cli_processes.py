"""The real `runfold`, as a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import redis

from runfold.protocol.codec import encode_event
from runfold.protocol.frames import decode_frame
from runfold.protocol.streams import agree_on_shards, stream_key
from runfold_stack.servers.privileges import command_as

RUNFOLD = (sys.executable, "-P", "-m", "runfold_stack.cli")
PATIENCE_S = 60.0


def environ(**settings: str) -> dict[str, str]:
    """Ours, without anybody's settings but these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNFOLD_")}
    return {**kept, **settings}


def runfold(
    *words: str, env: Mapping[str, str], stdin: bytes = b"", cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run one command to its end."""
    return subprocess.run(
        [*RUNFOLD, *words], env=dict(env), input=stdin, cwd=cwd, capture_output=True, timeout=120
    )


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """The first result that is true; fails with `what` after a while."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


class Up:
    """A `runfold up`, ready; it ends with the tests, also if they are killed."""

    def __init__(self, home: Path, *words: str) -> None:
        self.home = home
        self.env = environ(RUNFOLD_HOME=str(home))
        self.log_path = home.with_suffix(".log")
        command = [*RUNFOLD, "up", "--port", "0", "--json", *words]
        with self.log_path.open("ab") as log:
            self.log_start = log.tell()
            self.process = subprocess.Popen(
                command_as(None, command, death_signal=signal.SIGTERM),
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.env,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log()
        self.state: dict[str, Any] = json.loads(line)

    def log(self) -> str:
        """What it has logged since it was started."""
        return self.log_path.read_bytes()[self.log_start :].decode()

    def pids_of(self, child: str) -> list[int]:
        """The pids that a child has had, the present one last."""
        return [
            int(pid) for pid in re.findall(rf"started child=\"?{child}\"? pid=(\d+)", self.log())
        ]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait; returns the exit code."""
        self.process.send_signal(number)
        status = self.process.wait(timeout=PATIENCE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status


def recorded_events(redis_url: str) -> list[dict[str, Any]]:
    """All events that are in the streams, by time and id."""
    found = []
    with redis.Redis.from_url(redis_url) as client:
        for shard in range(agree_on_shards(client)):
            for _, fields in client.xrange(stream_key(shard)):
                for envelope, _ in decode_frame(fields).events:
                    found.append(json.loads(encode_event(envelope)))
    return sorted(found, key=lambda event: (event["at"], event["id"]))

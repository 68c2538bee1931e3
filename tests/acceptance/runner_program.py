"""A runner as a program of its own: `runner_program.py EVENTS`, a file with a JSON event a line.

Emits them in five parts. Before the second one Redis is full, before the last one it no longer is,
so that events go through memory, through the spool, and from there to their streams. Prints how
many events it was told are safe, each time that it is told.
"""

import os
import sys
import time
from pathlib import Path

import msgspec
import redis

from runfold import Recorder
from runfold.delivery.emitter import Flushed
from runfold.protocol.codec import decode_event, to_datetime

PARTS = 5


def main() -> None:
    """All five parts."""
    client = redis.Redis.from_url(os.environ["RUNFOLD_REDIS_URL"])
    recorder = Recorder(heartbeat_s=0)
    lines = Path(sys.argv[1]).read_bytes().splitlines()
    size = -(-len(lines) // PARTS)
    for part in range(PARTS):
        if part == 1:
            client.set("ballast", bytes(4 * 1024 * 1024))
            client.config_set("maxmemory", "2mb")
        if part == PARTS - 1:
            client.config_set("maxmemory", "0")
            while acknowledge(recorder, part * size).spooled:
                time.sleep(0.01)
        for line in lines[part * size : (part + 1) * size]:
            envelope, event = decode_event(line)
            at = to_datetime(envelope.at_us)
            recorder.emit(msgspec.structs.replace(event, run=envelope.run, id=envelope.id, at=at))
        acknowledge(recorder, min((part + 1) * size, len(lines)))
    recorder.close()


def acknowledge(recorder: Recorder, said: int) -> Flushed:
    """Wait until everything is safe, and say so."""
    flushed = recorder.flush(0.3)
    while flushed.pending:
        flushed = recorder.flush(0.3)
    assert flushed.sent + flushed.spooled == said, flushed
    print(said, flush=True)
    return flushed


if __name__ == "__main__":
    main()

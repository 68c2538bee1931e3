"""`runfold emit`: send events from a file or a pipe to their streams.

Each line is checked on its own: an invalid one is reported and skipped, the others are sent. An
event without an id gets one derived from its content, so sending a file again is harmless.
"""

import os
import stat
import sys
from argparse import ArgumentParser, Namespace
from typing import Any, Final

import redis

from runfold.delivery.frame_writer import FrameSender
from runfold.errors import BrokenEvent
from runfold.protocol.events import MAX_RAW_BYTES
from runfold.protocol.streams import agree_on_shards, connect
from runfold.serialization.intake import Intake
from runfold_stack.endpoints import require_redis
from runfold_stack.exit_codes import FAILED, OK, UNREACHABLE, CommandFailed
from runfold_stack.options.line_reader import Line, read_lines
from runfold_stack.terminal.formats import number
from runfold_stack.terminal.output import say

from . import Context

_IDLE_MS: Final = 100
_MAX_LISTED: Final = 1000
"""Invalid lines in the JSON document; stderr lists all of them."""

EPILOG = """\
examples:
  runfold emit events.ndjson
  my-runner --events | runfold emit

An event needs at least a type, a run and a time:
  {"type": "started", "run": "r1", "at": "2026-11-21T02:00:00Z", "workflow": "w"}
  {"type": "completed", "run": "r1", "at": "2026-11-21T02:00:05Z"}
An invalid line is reported and skipped, and so is an event dated before the year 2000 or more than
a day in the future (RUNFOLD_MAX_FUTURE_S); then the exit code is 1. Values of sensitive keys are
masked (RUNFOLD_REDACT_KEYS). Sending a file again changes nothing. An event counts as accepted once
Redis has confirmed it.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="default: - (stdin)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Send the lines; print how many events Redis has accepted."""
    fd = sys.stdin.fileno() if arguments.file == "-" else os.open(arguments.file, os.O_RDONLY)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        raise CommandFailed(f"{arguments.file} is a folder: give a file with one event per line")
    settings = context.settings
    intake = Intake(settings.redact_keys, settings.max_future_s)
    client = connect(require_redis(settings))
    try:
        sender = FrameSender(client, agree_on_shards(client, settings.shards))
        invalid = _InvalidLines()
        try:
            _send(fd, intake, sender, invalid)
        except redis.RedisError as error:
            raise CommandFailed(
                f"Redis accepted {number(sender.accepted)} events and then failed ({error}): "
                "once it is back, send the same input again; no event counts twice",
                UNREACHABLE,
            ) from error
    finally:
        client.close()
    skipped = f", {number(invalid.count)} invalid lines skipped" if invalid.count else ""
    context.output.result(
        {"accepted": sender.accepted, "broken": invalid.count, "lines": invalid.lines},
        f"{number(sender.accepted)} events accepted{skipped}",
    )
    return FAILED if invalid.count else OK


class _InvalidLines:
    def __init__(self) -> None:
        self.count = 0
        self.lines: list[dict[str, Any]] = []

    def report(self, line: int, reason: str) -> None:
        self.count += 1
        if len(self.lines) < _MAX_LISTED:
            self.lines.append({"line": line, "reason": reason})
        say(f"line {line}: {reason}")


def _send(fd: int, intake: Intake, sender: FrameSender, invalid: _InvalidLines) -> None:
    try:
        for line in read_lines(fd, max_bytes=MAX_RAW_BYTES, idle_ms=_IDLE_MS):
            if line is None:
                sender.flush()
            else:
                _add(line, intake, sender, invalid)
    finally:
        # Also after Ctrl-C: lines read from a pipe cannot be read again.
        sender.flush()


def _add(line: Line, intake: Intake, sender: FrameSender, invalid: _InvalidLines) -> None:
    if line.size > MAX_RAW_BYTES:
        invalid.report(line.number, f"too large: {line.size} bytes, the maximum is {MAX_RAW_BYTES}")
        return
    content = line.content.strip()
    if line.number == 1:
        content = content.removeprefix(b"\xef\xbb\xbf")
    if not content:
        return
    try:
        envelope = intake.read(content, intake.latest_us())
    except BrokenEvent as error:
        invalid.report(line.number, str(error))
    else:
        sender.add(envelope)

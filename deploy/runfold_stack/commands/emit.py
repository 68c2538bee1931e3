"""`runfold emit`: events from a file or a pipe into their streams.

Every line is checked for itself: a broken one is reported and left out, the others are sent. An
event without an id gets one that follows from its content, so sending a file again is harmless.
"""

import os
import stat
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
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
"""Broken lines in the JSON document; stderr has all of them."""

_EPILOG = """\
examples:
  runfold emit events.ndjson
  my-runner --events | runfold emit

An event has at least a type, a run and a time:
  {"type": "started", "run": "r1", "at": "2026-11-21T02:00:00Z", "workflow": "w"}
  {"type": "completed", "run": "r1", "at": "2026-11-21T02:00:05Z"}
A broken line is reported and left out, as is one from before the year 2000 or more than a day
ahead (RUNFOLD_MAX_FUTURE_S); the exit code is 1 if there was one. Values under sensitive keys are
masked (RUNFOLD_REDACT_KEYS). Sending a file again changes nothing. An event is accepted once Redis
has answered.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="default: - (stdin)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Send the lines; say how many events Redis has."""
    fd = sys.stdin.fileno() if arguments.file == "-" else os.open(arguments.file, os.O_RDONLY)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        raise CommandFailed(f"{arguments.file} is a folder: give a file with one event a line")
    settings = context.settings
    intake = Intake(settings.redact_keys, settings.max_future_s)
    client = connect(require_redis(settings))
    try:
        sender = FrameSender(client, agree_on_shards(client, settings.shards))
        broken = _Broken()
        try:
            _send(fd, intake, sender, broken)
        except redis.RedisError as error:
            raise CommandFailed(
                f"Redis took {number(sender.accepted)} events and then no more ({error}): "
                "when it is back, send the same again, which repeats nothing",
                UNREACHABLE,
            ) from error
    finally:
        client.close()
    if context.output.is_json:
        document = {"accepted": sender.accepted, "broken": broken.count, "lines": broken.lines}
        context.output.json(document)
    else:
        verdict = f", {number(broken.count)} broken lines left out" if broken.count else ""
        context.output.line(f"{number(sender.accepted)} events accepted{verdict}")
    return FAILED if broken.count else OK


class _Broken:
    def __init__(self) -> None:
        self.count = 0
        self.lines: list[dict[str, Any]] = []

    def report(self, line: int, reason: str) -> None:
        self.count += 1
        if len(self.lines) < _MAX_LISTED:
            self.lines.append({"line": line, "reason": reason})
        say(f"line {line}: {reason}")


def _send(fd: int, intake: Intake, sender: FrameSender, broken: _Broken) -> None:
    try:
        for line in read_lines(fd, max_bytes=MAX_RAW_BYTES, idle_ms=_IDLE_MS):
            if line is None:
                sender.flush()
            else:
                _add(line, intake, sender, broken)
    finally:
        # Also after Ctrl-C: what was read may be gone from where it came from.
        sender.flush()


def _add(line: Line, intake: Intake, sender: FrameSender, broken: _Broken) -> None:
    if line.size > MAX_RAW_BYTES:
        broken.report(
            line.number, f"too large: {line.size} bytes, at most {MAX_RAW_BYTES} are allowed"
        )
        return
    content = line.content.strip()
    if line.number == 1:
        content = content.removeprefix(b"\xef\xbb\xbf")
    if not content:
        return
    try:
        envelope = intake.read(content, intake.latest_us())
    except BrokenEvent as error:
        broken.report(line.number, str(error))
    else:
        sender.add(envelope)

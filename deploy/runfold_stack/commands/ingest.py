"""`runfold emit`, `import` and `drain`: send events from files, other systems, or the spool.

Sending the same input again is harmless: an event without an id gets one derived from its content,
and an imported file always yields the same run.
"""

import math
import os
import select
import stat
import sys
from argparse import ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import redis

from runfold.delivery.frame_writer import FrameSender
from runfold.delivery.spool_drain import DrainResult, SpoolState, read_spool
from runfold.delivery.spool_drain import drain as drain_spool
from runfold.errors import BrokenEvent
from runfold.protocol.events import MAX_RAW_BYTES
from runfold.protocol.streams import agree_on_shards, connect
from runfold.serialization.intake import Intake
from runfold.settings import Settings as SdkSettings
from runfold_stack.endpoints import require_database, require_redis
from runfold_stack.errors import FAILED, OK, UNREACHABLE, USAGE, CommandFailed
from runfold_stack.importers.wfformat import WfFormatError, count_events, events, read_instance
from runfold_stack.options import JSON, name, option
from runfold_stack.servers.local_stack import find_database_url
from runfold_stack.settings import Settings
from runfold_stack.terminal.formats import number
from runfold_stack.terminal.output import plain, progress_bar, say
from runfold_storage.errors import FoldBehind

from . import Context, command

FORMATS: Final = ("wfformat",)
_CHUNK: Final = 256 * 1024
_IDLE_MS: Final = 100
_MAX_LISTED: Final = 1000
"""Invalid lines in the JSON document; stderr lists all of them."""


class Line(NamedTuple):
    """A line without its newline; `content` is empty if the line is too long."""

    number: int
    content: bytes
    size: int


@contextmanager
def _sender(settings: Settings, remedy: str) -> Iterator[FrameSender]:
    client = connect(require_redis(settings))
    try:
        sender = FrameSender(client, agree_on_shards(client, settings.shards))
        try:
            yield sender
        except redis.RedisError as error:
            raise CommandFailed(
                f"Redis accepted {number(sender.accepted)} events and then failed ({error}): "
                f"once it is back, {remedy}",
                UNREACHABLE,
            ) from error
    finally:
        client.close()


@command(option("file", nargs="?", default="-", metavar="FILE", help="default: - (stdin)"), JSON)
def emit(arguments: Namespace, context: Context) -> int:
    """examples:
      runfold emit events.ndjson
      my-runner --events | runfold emit

    An event needs at least a type, a run and a time:
      {"type": "started", "run": "r1", "at": "2026-11-21T02:00:00Z", "workflow": "w"}
      {"type": "completed", "run": "r1", "at": "2026-11-21T02:00:05Z"}
    An invalid line is reported and skipped, and so is an event dated before the year 2000 or more
    than a day in the future (RUNFOLD_MAX_FUTURE_S); then the exit code is 1. Values of sensitive
    keys are masked (RUNFOLD_REDACT_KEYS). Sending a file again changes nothing. An event counts as
    accepted once Redis has confirmed it.
    """
    fd = sys.stdin.fileno() if arguments.file == "-" else os.open(arguments.file, os.O_RDONLY)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        raise CommandFailed(f"{arguments.file} is a folder: give a file with one event per line")
    settings = context.settings
    intake = Intake(settings.redact_keys, settings.max_future_s)
    broken, listed = 0, []
    with _sender(settings, "send the same input again; no event counts twice") as sender:
        try:
            for line in read_lines(fd, max_bytes=MAX_RAW_BYTES, idle_ms=_IDLE_MS):
                if line is None:
                    sender.flush()
                    continue
                try:
                    _send_line(line, intake, sender)
                except BrokenEvent as error:
                    broken += 1
                    say(f"line {line.number}: {error}")
                    if broken <= _MAX_LISTED:
                        listed.append({"line": line.number, "reason": str(error)})
        finally:
            # Also after Ctrl-C: lines read from a pipe cannot be read again.
            sender.flush()
    skipped = f", {number(broken)} invalid lines skipped" if broken else ""
    document = {"accepted": sender.accepted, "broken": broken, "lines": listed}
    context.output.result(document, f"{number(sender.accepted)} events accepted{skipped}")
    return FAILED if broken else OK


def _send_line(line: Line, intake: Intake, sender: FrameSender) -> None:
    if line.size > MAX_RAW_BYTES:
        raise BrokenEvent(f"too large: {line.size} bytes, the maximum is {MAX_RAW_BYTES}")
    content = line.content.strip()
    if line.number == 1:
        content = content.removeprefix(b"\xef\xbb\xbf")
    if content:
        sender.add(intake.read(content, intake.latest_us()))


def read_lines(fd: int, *, max_bytes: int, idle_ms: int) -> Iterator[Line | None]:
    """Yield lines as they arrive, in bounded memory; yield None after a pause, for a flush."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    number, rest, skipped, is_idle = 1, b"", 0, True
    while True:
        if not is_idle and not poll.poll(idle_ms):
            is_idle = True
            yield None
        chunk = os.read(fd, _CHUNK)
        is_idle = False
        *whole, tail = chunk.split(b"\n")
        for piece in whole:
            size = skipped + len(rest) + len(piece)
            yield Line(number, rest + piece if size <= max_bytes else b"", size)
            number, rest, skipped = number + 1, b"", 0
        rest += tail
        if len(rest) > max_bytes:
            skipped, rest = skipped + len(rest), b""
        if not chunk:
            break
    if rest or skipped:
        size = skipped + len(rest)
        yield Line(number, rest if size <= max_bytes else b"", size)


@command(
    option("--format", required=True, help=f"one of: {', '.join(FORMATS)}"),
    option("files", nargs="+", type=Path, metavar="FILE", help="-: standard input"),
    option("--project", type=name, help="the project of the runs"),
    option(
        "--wait",
        action=BooleanOptionalAction,
        help="wait until the runs can be read (default: yes, if the database is known)",
    ),
    option("--timeout", type=float, default=60, metavar="SECONDS", help="how long to wait (60)"),
    JSON,
)
def import_traces(arguments: Namespace, context: Context) -> int:
    """examples:
      runfold import --format wfformat montage.json epigenomics.json
      runfold show "$(runfold import --format wfformat montage.json)"

    formats:
      wfformat   executions of WfCommons, as in github.com/wfcommons/WfInstances

    Prints the id of each run. A file that cannot be imported is reported and skipped; then the exit
    code is 1. Importing a file again changes nothing.
    """
    settings = context.settings
    if arguments.format not in FORMATS:
        known = ", ".join(FORMATS)
        raise CommandFailed(f"--format {arguments.format}: the formats are: {known}", USAGE)
    database_url = None
    if arguments.wait:
        database_url = require_database(settings)
    elif arguments.wait is None:
        database_url = settings.database_url or find_database_url(settings.home)
    imported: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    project = arguments.project or settings.project
    with _sender(settings, "import the same files again") as sender:
        for path in arguments.files:
            try:
                imported.append(_import_file(path, project, settings, sender))
            except WfFormatError as error:
                say(str(error))
                failed.append({"file": str(path), "reason": str(error)})
    folded = database_url is not None and _wait_until_folded(
        database_url, sender.last_frames, arguments.timeout
    )
    if context.output.is_json:
        context.output.json({"runs": imported, "failed": failed, "folded": folded})
    else:
        for entry in imported:
            context.output.line(plain(entry["run"]))
    if database_url is not None and not folded:
        say(
            f"the events are in Redis, but not all are folded after {arguments.timeout:g} s: "
            "check with `runfold doctor` whether a worker runs"
        )
    return FAILED if failed or (arguments.wait and not folded) else OK


def _wait_until_folded(url: str, frames: Mapping[int, str], timeout_s: float) -> bool:
    from runfold_storage.history import History  # slow, and `emit` does not need it

    try:
        with History(url, pool_size=1) as history:
            wanted = {str(shard): frame for shard, frame in frames.items()}
            history.wait_for(wanted, timeout_s=timeout_s)
    except FoldBehind:
        return False
    return True


def _import_file(
    path: Path, project: str | None, settings: Settings, sender: FrameSender
) -> dict[str, Any]:
    intake = Intake(settings.redact_keys, settings.max_future_s)
    latest_us = intake.latest_us()
    instance = read_instance(path)
    file, run, sent = plain(path.name), "", 0
    found = events(instance, project=project, latest_us=latest_us, redactor=intake.redactor)
    with progress_bar(file, count_events(instance), "events") as show:
        for sent, envelope in enumerate(found, 1):
            run = envelope.run
            sender.add(intake.admit(envelope, latest_us))
            show(sent, file)
    sender.flush()
    return {"file": str(path), "run": run, "events": sent}


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ArgumentTypeError(f"{text!r}: expected a number of seconds")
    return seconds


@command(
    option("--timeout", type=_seconds, default=600, metavar="SECONDS", help="at most (600)"),
    JSON,
)
def drain(arguments: Namespace, context: Context) -> int:
    """Runners spool events that Redis does not accept to a folder; any later runner that records to
    the same Redis sends them. This command sends them now:

      runfold drain
      RUNFOLD_SPOOL_DIR=/var/spool/runner runfold drain

    Events of live runners are left to those runners. The exit code is 1 if other events are left.
    """
    settings = context.settings
    assert settings.spool_dir is not None
    folder, url = settings.spool_dir, require_redis(settings)
    with connect(url) as client:
        client.ping()
    shards, spool_bytes = settings.shards, settings.spool_bytes
    sdk_settings = SdkSettings(
        redis_url=url, shards=shards, spool_dir=str(folder), spool_bytes=spool_bytes
    )
    drained = drain_spool(sdk_settings, arguments.timeout)
    state = read_spool(folder, url, spool_bytes)
    left = state.this_redis.events - state.this_redis.in_use
    document = {
        "folder": str(folder),
        "sent": drained.sent,
        "unreadable": drained.unreadable,
        "dropped": drained.dropped,
        "left": left,
        "in_use": state.this_redis.in_use,
        "for_others": state.other_redis.events,
        "damaged": [str(path) for path in state.damaged],
    }
    context.output.result(document, "\n".join(_describe(state, drained, left)))
    return FAILED if left or drained.unreadable else OK


def _describe(state: SpoolState, drained: DrainResult, left: int) -> Iterator[str]:
    in_use, others = state.this_redis.in_use, state.other_redis.events
    yield f"sent {drained.sent:,} events from {state.folder}"
    if drained.unreadable:
        yield f"{drained.unreadable:,} events cannot be read and are lost"
    if drained.dropped:
        yield f"reported {drained.dropped:,} events that runners dropped, as an incident"
    if left:
        yield f"{left:,} events are left because Redis did not accept them; see `runfold doctor`"
    if in_use:
        yield f"{in_use:,} events belong to live runners, which will send them"
    if others:
        yield (
            f"{others:,} events are for another Redis: set RUNFOLD_REDIS_URL to the value that"
            " those runners used"
        )
    for path in state.damaged:
        yield f"damaged: {path}"

"""`runfold import`: import executions that other systems recorded, with their original times.

The same file always yields the same run with the same events, so a second import changes nothing.
"""

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from pathlib import Path
from typing import Any, Final

import redis

from runfold.delivery.frame_writer import FrameSender
from runfold.protocol.streams import agree_on_shards, connect
from runfold.serialization.intake import Intake
from runfold_stack.endpoints import require_database, require_redis
from runfold_stack.exit_codes import FAILED, OK, UNREACHABLE, USAGE, CommandFailed
from runfold_stack.importers.wfformat import WfFormatError, count_events, events, read_instance
from runfold_stack.options.values import name
from runfold_stack.processes.readiness import wait_until_folded
from runfold_stack.servers.local_stack import find_database_url
from runfold_stack.settings import Settings
from runfold_stack.terminal.output import plain, say
from runfold_stack.terminal.progress import progress_bar

from . import Context

FORMATS: Final = ("wfformat",)

EPILOG = """\
examples:
  runfold import --format wfformat montage.json epigenomics.json
  runfold show "$(runfold import --format wfformat montage.json)"

formats:
  wfformat   executions of WfCommons, as in github.com/wfcommons/WfInstances

Prints the id of each run. A file that cannot be imported is reported and skipped; then the exit
code is 1. Importing a file again changes nothing.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--format", required=True, help=f"one of: {', '.join(FORMATS)}")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="-: standard input")
    parser.add_argument("--project", type=name, help="the project of the runs")
    parser.add_argument(
        "--wait",
        action=BooleanOptionalAction,
        help="wait until the runs can be read (default: yes, if the database is known)",
    )
    parser.add_argument(
        "--timeout", type=float, default=60, metavar="SECONDS", help="how long to wait (60)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Send the events of each file; wait until they are folded."""
    settings = context.settings
    if arguments.format not in FORMATS:
        known = ", ".join(FORMATS)
        raise CommandFailed(f"--format {arguments.format}: the formats are: {known}", USAGE)
    database_url = None
    if arguments.wait:
        database_url = require_database(settings)
    elif arguments.wait is None:
        database_url = settings.database_url or find_database_url(settings.home)
    client = connect(require_redis(settings))
    try:
        sender = FrameSender(client, agree_on_shards(client, settings.shards))
        imported, failed = _import(arguments, settings, sender)
    except redis.RedisError as error:
        raise CommandFailed(
            f"Redis accepts no events ({error}): once it does, import the same files again",
            UNREACHABLE,
        ) from error
    finally:
        client.close()
    folded = database_url is not None and wait_until_folded(
        database_url, sender.last_frames, timeout_s=arguments.timeout
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


def _import(
    arguments: Namespace, settings: Settings, sender: FrameSender
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    intake = Intake(settings.redact_keys, settings.max_future_s)
    project = arguments.project or settings.project
    imported, failed = [], []
    for path in arguments.files:
        latest_us = intake.latest_us()
        try:
            instance = read_instance(path)
            file, run, number = plain(path.name), "", 0
            with progress_bar(file, count_events(instance), "events") as show:
                for number, envelope in enumerate(
                    events(
                        instance, project=project, latest_us=latest_us, redactor=intake.redactor
                    ),
                    1,
                ):
                    run = envelope.run
                    sender.add(intake.admit(envelope, latest_us))
                    show(number, file)
        except WfFormatError as error:
            say(str(error))
            failed.append({"file": str(path), "reason": str(error)})
            continue
        sender.flush()
        imported.append({"file": str(path), "run": run, "events": number})
    return imported, failed

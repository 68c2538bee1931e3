"""`runfold drain`: send the events in this machine's spool to Redis.

If the command dies halfway, the segments record what has been sent; at worst some events are sent
twice, which changes nothing.
"""

import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from runfold.delivery.spool_drain import DrainResult, SpoolState, drain, read_spool
from runfold.protocol.streams import connect
from runfold.settings import Settings as SdkSettings
from runfold_stack.endpoints import require_redis
from runfold_stack.exit_codes import FAILED, OK

from . import Context

EPILOG = """\
Runners spool events that Redis does not accept to a folder; any later runner that records to the
same Redis sends them. This command sends them now:

  runfold drain
  RUNFOLD_SPOOL_DIR=/var/spool/runner runfold drain

Events of live runners are left to those runners. The exit code is 1 if other events are left.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=600.0,
        metavar="S",
        help="maximum duration in seconds (600)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Check that Redis answers, drain the spool, report the rest."""
    settings = context.settings
    assert settings.spool_dir is not None
    folder, url = settings.spool_dir, require_redis(settings)
    with connect(url) as client:
        client.ping()
    drained = drain(
        SdkSettings(
            redis_url=url,
            shards=settings.shards,
            spool_dir=str(folder),
            spool_bytes=settings.spool_bytes,
        ),
        arguments.timeout,
    )
    state = read_spool(folder, url, settings.spool_bytes)
    left = state.this_redis.events - state.this_redis.in_use
    if context.output.is_json:
        context.output.json(
            {
                "folder": str(folder),
                "sent": drained.sent,
                "unreadable": drained.unreadable,
                "dropped": drained.dropped,
                "left": left,
                "in_use": state.this_redis.in_use,
                "for_others": state.other_redis.events,
                "damaged": [str(path) for path in state.damaged],
            }
        )
    else:
        _print(context, state, drained, left)
    return FAILED if left or drained.unreadable else OK


def _print(context: Context, state: SpoolState, drained: DrainResult, left: int) -> None:
    line = context.output.line
    line(f"sent {drained.sent:,} events from {state.folder}")
    if drained.unreadable:
        line(f"{drained.unreadable:,} events cannot be read and are lost")
    if drained.dropped:
        line(f"reported {drained.dropped:,} events that runners dropped, as an incident")
    if left:
        line(f"{left:,} events are left because Redis did not accept them; see `runfold doctor`")
    if state.this_redis.in_use:
        line(f"{state.this_redis.in_use:,} events belong to live runners, which will send them")
    if state.other_redis.events:
        line(
            f"{state.other_redis.events:,} events are for another Redis: set RUNFOLD_REDIS_URL to"
            " the value that those runners used"
        )
    for path in state.damaged:
        line(f"damaged: {path}")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ArgumentTypeError(f"{text!r}: expected a number of seconds")
    return seconds

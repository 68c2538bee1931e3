"""`runfold drain`: send what waits in the spool of this machine, and say what is left.

Dies halfway: what is in Redis is noted in the segments; at worst some events go out twice, which
changes nothing.
"""

import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter

from runfold.delivery.spool_drain import DrainResult, SpoolState, drain, read_spool
from runfold.protocol.streams import connect
from runfold.settings import Settings as SdkSettings
from runfold_stack.endpoints import require_redis
from runfold_stack.exit_codes import FAILED, OK

from . import Context

_EPILOG = """\
Runners put events that Redis does not take into a folder, and any later runner that records to the
same Redis sends them. This does it at once, when no runner will come for a while:

  runfold drain
  RUNFOLD_SPOOL_DIR=/var/spool/runner runfold drain

Events of runners that live are left to them. The exit code is 1 if others are left.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "--timeout", type=_seconds, default=600.0, metavar="S", help="seconds at most (600)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Ask Redis whether it is there, drain, look again."""
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
        _tell(context, state, drained, left)
    return FAILED if left or drained.unreadable else OK


def _tell(context: Context, state: SpoolState, drained: DrainResult, left: int) -> None:
    line = context.output.line
    line(f"sent {drained.sent:,} events of {state.folder}")
    if drained.unreadable:
        line(f"{drained.unreadable:,} events cannot be read any more and are lost")
    if drained.dropped:
        line(f"reported {drained.dropped:,} events that runners dropped: an incident tells of them")
    if left:
        line(f"{left:,} events are left: Redis did not take them; see `runfold doctor`")
    if state.this_redis.in_use:
        line(
            f"{state.this_redis.in_use:,} events are of runners that live, which send them themselves"
        )
    if state.other_redis.events:
        line(
            f"{state.other_redis.events:,} events are for another Redis: set RUNFOLD_REDIS_URL as it"
            " was for those runners"
        )
    for path in state.damaged:
        line(f"damaged: {path}")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ArgumentTypeError(f"{text!r}: a number of seconds is needed")
    return seconds

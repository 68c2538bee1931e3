"""Record a command as a run, without delaying or breaking it: events go into the SDK's buffer."""

import os
import pwd
import shlex
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import redis

from runfold import Recorder
from runfold.errors import ShardsDiffer
from runfold.protocol.events import Error
from runfold.protocol.streams import agree_on_shards, connect
from runfold.serialization.redaction import Redactor
from runfold_stack.argv_redaction import redact_command_line

from .output_recorder import OutputRecorder
from .process import ExitResult
from .stdio import Source

FIRST_WAIT_S: Final = 0.2
PING_S: Final = 2.0
LAST_WAIT_S: Final = 5.0

_CANCELLING: Final = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT))
_MAX_MESSAGE: Final = 500
_ADVICE: Final = "start Redis, or see `runfold doctor`"


class ExecutionRecorder:
    """Made before the command starts; raise `SettingInvalid` for settings that the SDK refuses."""

    def __init__(
        self,
        redis_url: str,
        words: Sequence[str],
        *,
        workflow: str | None,
        project: str | None,
        tags: Mapping[str, str],
        run: str | None,
        shards: int | None,
    ) -> None:
        self._recorder = Recorder(redis_url, project=project, shards=shards)
        shown = redact_command_line(words, Redactor(self._recorder.settings.redact_keys))
        self._outputs: dict[str, OutputRecorder] = {}
        self._run = self._recorder.run(
            workflow or os.path.basename(words[0]) or words[0],
            id=run,
            trigger="exec",
            user=_unless_missing(lambda: pwd.getpwuid(os.getuid()).pw_name),
            tags=tags,
            inputs={
                "command": shlex.join(shown),
                "cwd": _unless_missing(os.getcwd),
                "host": socket.gethostname(),
            },
        )

    @property
    def run(self) -> str:
        """The run's id."""
        return self._run.id

    def begin(self) -> None:
        """Record that the command runs."""
        self._run.start()

    def listen(self, source: Source) -> OutputRecorder:
        """Return a recorder for one of the command's streams."""
        output = OutputRecorder(
            lambda text: self._run.log(text, stream=source.name), is_terminal=source.is_terminal
        )
        self._outputs[source.name] = output
        return output

    def end(self, result: ExitResult, exit_code: int) -> None:
        """Record the command's end."""
        self._run.exit_code = exit_code
        killed_by = -result.returncode if result.returncode < 0 else exit_code - 128
        if exit_code == 0:
            self._run.complete()
        elif killed_by in result.signals & _CANCELLING:
            self._run.cancel(f"{_signal_name(killed_by)} was sent to it")
        elif result.returncode < 0:
            self._run.fail(Error(type="Signal", message=f"killed by {_signal_name(killed_by)}"))
        else:
            # The last line of stderr, or of the terminal that it shares with stdout.
            output = self._outputs.get("stderr", self._outputs.get("stdout"))
            last = "" if output is None else output.last_line[:_MAX_MESSAGE]
            message = f"exit code {exit_code}" + (f": {last}" if last else "")
            self._run.fail(Error(type="ExitCode", message=message))

    def refuse(self, message: str, exit_code: int) -> None:
        """Record that the command could not be started."""
        self._run.start()
        self._run.exit_code = exit_code
        kind = "CommandNotFound" if exit_code == 127 else "CommandNotExecutable"
        self._run.fail(Error(type=kind, message=message))

    def close(self) -> str | None:
        """Wait for the delivery of all events; return what was not delivered, and why."""
        flushed = self._recorder.flush(FIRST_WAIT_S)
        reason = ""
        if flushed.pending or flushed.spooled:
            reason = self._explain_redis()
            if not reason:
                self._recorder.flush(LAST_WAIT_S)
                reason = f"Redis accepts no events, or accepts them too slowly: {_ADVICE}"
        flushed = self._recorder.close(0)
        if flushed.spooled:
            what = f"{flushed.spooled} events of this run are" if flushed.sent else "this run is"
            return f"{what} spooled to disk, and the next recording program sends it: {reason}"
        if flushed.pending:
            what = f"{flushed.pending} events of this run" if flushed.sent else "this run"
            return f"{what} could not be recorded: {reason}"
        if flushed.dropped:
            return f"{flushed.dropped} events of this run were dropped: too many at a time"
        return None

    def _explain_redis(self) -> str:
        """Return why Redis accepts no events; empty if it answers normally."""
        settings = self._recorder.settings
        try:
            with connect(settings.redis_url, timeout_s=PING_S) as client:
                agree_on_shards(client, settings.shards)
        except ShardsDiffer as error:
            return str(error)
        except (redis.RedisError, OSError) as error:
            return f"{str(error).rstrip('.')}: {_ADVICE}".replace("\n", " ")
        return ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _unless_missing(read: Callable[[], str]) -> str | None:
    """Return what `read` returns; None for a user without a name, or a deleted directory."""
    try:
        return read()
    except (KeyError, OSError):
        return None

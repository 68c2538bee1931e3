"""The run that a command becomes.

Recording never slows the command down and never breaks it: events go into the SDK's buffer, and
only at the end is there a wait, short if Redis is away, for them to arrive.
"""

import os
import pwd
import shlex
import signal
import socket
from collections.abc import Mapping, Sequence
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
    """Made before the command starts; raises `SettingInvalid` for what the SDK refuses."""

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
        self._transcripts: dict[str, OutputRecorder] = {}
        self._run = self._recorder.run(
            workflow or os.path.basename(words[0]) or words[0],
            id=run,
            trigger="exec",
            user=_user(),
            tags=tags,
            inputs={"command": shlex.join(shown), "cwd": _cwd(), "host": socket.gethostname()},
        )

    @property
    def run(self) -> str:
        """The run's id."""
        return self._run.id

    def begin(self) -> None:
        """The command runs."""
        self._run.start()

    def listen(self, source: Source) -> OutputRecorder:
        """Take what the command writes."""
        transcript = OutputRecorder(
            lambda text: self._run.log(text, stream=source.name), is_terminal=source.is_terminal
        )
        self._transcripts[source.name] = transcript
        return transcript

    def end(self, ended: ExitResult, exit_code: int) -> None:
        """The command has ended."""
        self._run.exit_code = exit_code
        if exit_code == 0:
            self._run.complete()
            return
        killed_by = -ended.returncode if ended.returncode < 0 else exit_code - 128
        name = _signal_name(killed_by)
        if killed_by in ended.signals & _CANCELLING:
            self._run.cancel(f"{name} was sent to it")
        elif ended.returncode < 0:
            self._run.fail(Error(type="Signal", message=f"killed by {name}"))
        else:
            words = self._last_words()
            message = f"exit code {exit_code}" + (f": {words}" if words else "")
            self._run.fail(Error(type="ExitCode", message=message))

    def refuse(self, message: str, exit_code: int) -> None:
        """The command could not be started."""
        self._run.start()
        self._run.exit_code = exit_code
        kind = "CommandNotFound" if exit_code == 127 else "CommandNotExecutable"
        self._run.fail(Error(type=kind, message=message))

    def close(self) -> str | None:
        """Wait for what was recorded to arrive; returns what has not, and why."""
        flushed = self._recorder.flush(FIRST_WAIT_S)
        reason = ""
        if flushed.pending or flushed.spooled:
            reason = self._ask_redis()
            if not reason:
                self._recorder.flush(LAST_WAIT_S)
                reason = f"Redis takes no events, or takes them too slowly: {_ADVICE}"
        flushed = self._recorder.close(0)
        if flushed.spooled:
            what = f"{flushed.spooled} events of this run are" if flushed.sent else "this run is"
            return f"{what} kept on disk, and sent by the next program that records here: {reason}"
        if flushed.pending:
            what = f"{flushed.pending} events of this run" if flushed.sent else "this run"
            return f"{what} could not be recorded: {reason}"
        if flushed.dropped:
            return f"{flushed.dropped} events of this run were not recorded: too many at a time"
        return None

    def _ask_redis(self) -> str:
        """Why it takes nothing; empty if nothing seems wrong."""
        settings = self._recorder.settings
        client = connect(settings.redis_url, timeout_s=PING_S)
        try:
            agree_on_shards(client, settings.shards)
        except ShardsDiffer as error:
            return str(error)
        except (redis.RedisError, OSError) as error:
            return f"{str(error).rstrip('.')}: {_ADVICE}".replace("\n", " ")
        else:
            return ""
        finally:
            client.close()

    def _last_words(self) -> str:
        """What it complained about: on stderr, or on the terminal that it shares with stdout."""
        heard = self._transcripts.get("stderr", self._transcripts.get("stdout"))
        return "" if heard is None else heard.last_line[:_MAX_MESSAGE]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _user() -> str | None:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return None


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # deleted under us
        return None

"""`runfold exec`: the command runs as it would without it, and is recorded beside."""

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from acceptance.cli_processes import RUNFOLD, environ, recorded_events, runfold, wait_for

EVERY_BYTE = bytes(range(256)) * 400


def run(redis_url: str, *command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Record one command."""
    return runfold("exec", "--", *command, env=environ(RUNFOLD_REDIS_URL=redis_url), stdin=stdin)


def texts(events: list[dict[str, Any]], stream: str) -> list[str]:
    """What was recorded of one stream."""
    return [
        event["text"] for event in events if event["type"] == "logged" and event["stream"] == stream
    ]


def test_streams_pass_through_byte_for_byte(redis_url: str) -> None:
    """Stdin reaches the command unchanged, and its output reaches us unchanged."""
    answer = run(redis_url, "sh", "-c", "cat; echo problem >&2", stdin=EVERY_BYTE)
    assert answer.returncode == 0
    assert answer.stdout == EVERY_BYTE
    assert answer.stderr == b"problem\n"


def test_output_is_recorded_with_its_stream(redis_url: str) -> None:
    """Stdout and stderr become `logged` events; what is no UTF-8 is replaced, visibly."""
    run(redis_url, "sh", "-c", r"printf 'gr\303\274n \377\n'; echo bad >&2")
    events = recorded_events(redis_url)
    assert texts(events, "stdout") == ["grün \N{REPLACEMENT CHARACTER}\n"]
    assert texts(events, "stderr") == ["bad\n"]
    assert events[0]["type"] == "started"
    assert events[-1]["type"] == "completed"
    assert events[-1]["exit_code"] == 0
    assert events[-1]["duration_ms"] > 0


def test_long_output_is_recorded_in_bounded_pieces(redis_url: str) -> None:
    """Each text has at most 16 KiB and ends with a line; together they are the output."""
    answer = run(redis_url, "seq", "20000")
    recorded = texts(recorded_events(redis_url), "stdout")
    assert "".join(recorded) == answer.stdout.decode()
    assert all(len(text) <= 16 * 1024 and text.endswith("\n") for text in recorded)


def test_inputs_name_the_command_without_its_secrets(redis_url: str) -> None:
    """The command line is recorded with secrets masked, beside directory, host and user."""
    run(redis_url, "sh", "-c", "API_TOKEN=abc123; true", "--password=hunter2")
    started = recorded_events(redis_url)[0]
    assert "abc123" not in started["inputs"]["command"]
    assert "hunter2" not in started["inputs"]["command"]
    assert started["inputs"]["cwd"] == os.getcwd()
    assert started["workflow"] == "sh"
    assert started["trigger"] == {"type": "exec"}


@pytest.mark.parametrize(
    ("script", "exit_code", "error"),
    [
        ("exit 0", 0, None),
        ("exit 7", 7, {"type": "ExitCode", "message": "exit code 7"}),
        ("kill -KILL $$", 137, {"type": "Signal", "message": "killed by SIGKILL"}),
        ("kill -SEGV $$", 139, {"type": "Signal", "message": "killed by SIGSEGV"}),
    ],
)
def test_the_exit_code_passes_through(
    redis_url: str, script: str, exit_code: int, error: dict[str, str] | None
) -> None:
    """It is the command's own, or 128 + n after signal n; other than 0 it makes a failure."""
    assert run(redis_url, "sh", "-c", script).returncode == exit_code
    last = recorded_events(redis_url)[-1]
    assert last["type"] == ("completed" if error is None else "failed")
    assert last["exit_code"] == exit_code
    assert last.get("error") == error


def test_a_command_that_cannot_be_run_fails_as_in_a_shell(redis_url: str, tmp_path: Path) -> None:
    """No such command: 127; not executable: 126; both are recorded as failed."""
    plain = tmp_path / "plain"
    plain.write_text("echo hi\n")
    missing = run(redis_url, "no-such-command-here")
    assert missing.returncode == 127
    assert missing.stderr == b"runfold: no-such-command-here: command not found\n"
    assert run(redis_url, str(plain)).returncode == 126
    ends = [event for event in recorded_events(redis_url) if event["type"] == "failed"]
    assert [event["exit_code"] for event in ends] == [127, 126]
    assert [event["error"]["type"] for event in ends] == ["CommandNotFound", "CommandNotExecutable"]


def test_a_script_without_a_first_line_runs(redis_url: str, tmp_path: Path) -> None:
    """As from a shell, it is run by /bin/sh."""
    script = tmp_path / "script"
    script.write_text("echo from a script\n")
    script.chmod(0o755)
    assert run(redis_url, str(script)).stdout == b"from a script\n"


@pytest.mark.parametrize(
    ("number", "type_"),
    [
        (signal.SIGTERM, "cancelled"),
        (signal.SIGINT, "cancelled"),
        (signal.SIGHUP, "cancelled"),
        (signal.SIGUSR1, "failed"),
    ],
)
def test_a_signal_reaches_the_command(redis_url: str, number: signal.Signals, type_: str) -> None:
    """It is handed on; dying of one that asks to stop is a cancellation."""
    with subprocess.Popen(
        [*RUNFOLD, "exec", "--", "sh", "-c", "echo ready; exec sleep 600"],
        env=environ(RUNFOLD_REDIS_URL=redis_url),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    last = recorded_events(redis_url)[-1]
    assert last["type"] == type_
    if type_ == "cancelled":
        assert last["reason"] == f"{number.name} was sent to it"


def test_a_command_that_handles_a_signal_ends_as_it_likes(redis_url: str) -> None:
    """A SIGTERM that the command handles decides nothing about its end."""
    script = "trap 'echo cleaned; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [*RUNFOLD, "exec", "--", "sh", "-c", script],
        env=environ(RUNFOLD_REDIS_URL=redis_url),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.stdout.read() == b"cleaned\n"
    assert process.returncode == 0
    assert recorded_events(redis_url)[-1]["type"] == "completed"


def test_output_comes_as_it_is_written(redis_url: str) -> None:
    """A line can be read, and recorded, while the command goes on."""
    with subprocess.Popen(
        [*RUNFOLD, "exec", "--", "sh", "-c", "echo first; read answer; echo $answer"],
        env=environ(RUNFOLD_REDIS_URL=redis_url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"first\n"
        wait_for(lambda: texts(recorded_events(redis_url), "stdout"), "the line to be recorded")
        process.stdin.write(b"second\n")
        process.stdin.close()
        assert process.stdout.read() == b"second\n"


def test_a_reader_that_goes_away_ends_the_command(redis_url: str) -> None:
    """As in a pipeline without Runfold, the command gets SIGPIPE."""
    with subprocess.Popen(
        [*RUNFOLD, "exec", "--", "yes"],
        env=environ(RUNFOLD_REDIS_URL=redis_url),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(60) == 128 + signal.SIGPIPE


def test_a_process_left_behind_does_not_hold_us(redis_url: str) -> None:
    """The end of the command is the end, even if a child of it keeps the pipe open."""
    answer = run(redis_url, "sh", "-c", "sleep 30 & echo $!")
    os.kill(int(answer.stdout), signal.SIGKILL)
    assert recorded_events(redis_url)[-1]["type"] == "completed"


def test_a_run_with_a_wrong_number_of_shards_is_spooled_and_explained(
    redis_url: str, tmp_path: Path
) -> None:
    """A number of shards that is not the deployment's is reported as such, not as a slow Redis."""
    run(redis_url, "true")
    env = environ(RUNFOLD_REDIS_URL=redis_url, RUNFOLD_HOME=str(tmp_path), RUNFOLD_SHARDS="3")
    answer = runfold("exec", "--", "sh", "-c", "exit 5", env=env)
    assert answer.returncode == 5
    (warning,) = answer.stderr.splitlines()
    assert warning.startswith(b"runfold: this run is spooled to disk")
    assert warning.endswith(b"set RUNFOLD_SHARDS=8 or leave it unset")


@pytest.mark.parametrize(
    "wrong",
    [{"RUNFOLD_API_PORT": "abc"}, {"RUNFOLD_BUFFER_EVENTS": "-1"}, {"RUNFOLD_REDIS_URL": "tcp:x"}],
    ids="".join,
)
def test_a_wrong_setting_does_not_keep_the_command_from_running(wrong: dict[str, str]) -> None:
    """It runs unrecorded, with its own exit code, and the setting is named."""
    script = "echo out; trap; exit 5"
    answer = runfold("exec", "--", "sh", "-c", script, env=environ(**wrong))
    assert (answer.returncode, answer.stdout) == (5, b"out\n")
    culprit, consequence = answer.stderr.decode().splitlines()
    assert "".join(wrong) in culprit
    assert consequence == "runfold: the command runs, but is not recorded"
    absent = runfold("exec", "--", "no-such-command", env=environ(**wrong))
    assert absent.returncode == 127


def test_redis_away_changes_nothing_but_a_line_at_the_end(tmp_path: Path) -> None:
    """The command runs, output and exit code are as ever, and one line names where the run is."""
    env = environ(RUNFOLD_HOME=str(tmp_path))
    answer = runfold("exec", "--", "sh", "-c", "echo out; echo err >&2; exit 5", env=env)
    assert answer.returncode == 5
    assert answer.stdout == b"out\n"
    own, warning = answer.stderr.splitlines()
    assert own == b"err"
    assert warning.startswith(
        b"runfold: this run is spooled to disk, and the next recording program sends it: "
    )


class Terminal:
    """A terminal with a `runfold exec` as its foreground process."""

    def __init__(self, redis_url: str, *command: str, **streams: Any) -> None:
        self.fd, inner = os.openpty()
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
        arguments = {"stdin": inner, "stdout": inner, "stderr": inner, **streams}
        self.process = subprocess.Popen(
            [*RUNFOLD, "exec", "--", *command],
            env=environ(RUNFOLD_REDIS_URL=redis_url, TERM="xterm"),
            start_new_session=True,
            # Nothing but one system call, as in a fork of threads nothing else would be safe.
            preexec_fn=lambda: fcntl.ioctl(inner, termios.TIOCSCTTY, 0),  # noqa: PLW1509
            pass_fds=(inner,),
            **arguments,
        )
        os.close(inner)
        self.seen = b""

    def read_until(self, text: bytes) -> None:
        """Wait for a text on the screen."""
        while text not in self.seen:
            self.seen += os.read(self.fd, 4096)

    def read_all(self) -> bytes:
        """Everything to the end."""
        try:
            while data := os.read(self.fd, 4096):
                self.seen += data
        except OSError:  # no process has it open any more
            pass
        return self.seen

    def close(self) -> int:
        """The exit code."""
        self.read_all()
        status = self.process.wait(60)
        os.close(self.fd)
        return status


ASK = (
    "import os, sys; print([os.isatty(fd) for fd in (0, 1, 2)], os.get_terminal_size());"
    "print('hello', input('name? '), flush=True)"
)


def test_a_terminal_stays_a_terminal(redis_url: str) -> None:
    """The command has a terminal of the same size, and what is typed reaches it."""
    terminal = Terminal(redis_url, sys.executable, "-c", ASK)
    terminal.read_until(b"name? ")
    os.write(terminal.fd, b"world\n")
    terminal.read_until(b"hello world\r\n")
    assert terminal.close() == 0
    assert b"[True, True, True] os.terminal_size(columns=111, lines=33)\r\n" in terminal.seen
    recorded = "".join(texts(recorded_events(redis_url), "stdout"))
    assert recorded.endswith("name? world\nhello world\n")


def test_ctrl_c_in_a_terminal_cancels(redis_url: str) -> None:
    """The key becomes the command's SIGINT."""
    terminal = Terminal(redis_url, "sh", "-c", "echo ready; exec sleep 600")
    terminal.read_until(b"ready")
    os.write(terminal.fd, b"\x03")
    assert terminal.close() == 130
    assert recorded_events(redis_url)[-1]["type"] == "cancelled"


def test_ctrl_c_reaches_a_command_in_a_pipeline_once(redis_url: str, tmp_path: Path) -> None:
    """With stdout elsewhere the real terminal sends the signal, and it is not sent again."""
    script = (
        "import signal, sys, time\n"
        "count = 0\n"
        "def note(*_):\n"
        "    global count\n"
        "    count += 1\n"
        "signal.signal(signal.SIGINT, note)\n"
        "print('ready', file=sys.stderr, flush=True)\n"
        "while not count: time.sleep(0.01)\n"
        "time.sleep(0.3)\n"
        "print(count)\n"
    )
    with (tmp_path / "out").open("wb") as out:
        terminal = Terminal(redis_url, sys.executable, "-c", script, stdout=out)
        terminal.read_until(b"ready")
        os.write(terminal.fd, b"\x03")
        assert terminal.close() == 0
    assert (tmp_path / "out").read_text() == "1\n"

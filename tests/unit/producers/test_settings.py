"""The settings of the SDK."""

import re
from pathlib import Path
from typing import Any

import pytest

from runfold import Recorder, SettingInvalid, Settings
from runfold.serialization.redaction import DEFAULT_KEYS
from runfold.settings import default_spool_dir, read_settings, variable


def test_an_argument_wins_over_the_environment_and_that_over_the_default() -> None:
    """Each of the three sources is used where the ones before it are silent."""
    environ = {"RUNFOLD_SHARDS": "4", "RUNFOLD_PROJECT": "env"}
    settings = read_settings(environ, project="argument", shards=None)
    assert (settings.project, settings.shards, settings.heartbeat_s) == ("argument", 4, 60.0)


def test_every_setting_can_come_from_the_environment() -> None:
    """Each field has its variable, and is parsed to its type."""
    environ = {
        "RUNFOLD_REDIS_URL": "rediss://h:1/2",
        "RUNFOLD_SHARDS": "2",
        "RUNFOLD_PROJECT": "p",
        "RUNFOLD_REDACT_KEYS": "iban, -cookie,",
        "RUNFOLD_BUFFER_EVENTS": "10",
        "RUNFOLD_BUFFER_BYTES": "2000000",
        "RUNFOLD_BUFFER_WAIT_S": "2.5",
        "RUNFOLD_HEARTBEAT_S": "0.5",
        "RUNFOLD_EXIT_FLUSH_S": "0",
        "RUNFOLD_BACKPRESSURE": "block",
        "RUNFOLD_SPOOL_DIR": "/var/spool/runfold",
        "RUNFOLD_SPOOL_BYTES": "5000000",
        "RUNFOLD_MAX_FUTURE_S": "3600",
    }
    assert set(environ) == {variable(name) for name in Settings.__struct_fields__}
    assert read_settings(environ) == Settings(
        redis_url="rediss://h:1/2",
        shards=2,
        project="p",
        redact_keys=("iban", "-cookie"),
        buffer_events=10,
        buffer_bytes=2_000_000,
        buffer_wait_s=2.5,
        heartbeat_s=0.5,
        exit_flush_s=0.0,
        backpressure="block",
        spool_dir="/var/spool/runfold",
        spool_bytes=5_000_000,
        max_future_s=3600.0,
    )


def test_empty_variables_are_unset() -> None:
    """`RUNFOLD_SHARDS=` in a compose file means nothing."""
    assert read_settings({"RUNFOLD_SHARDS": " ", "RUNFOLD_REDIS_URL": ""}) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("redis_url", "http://localhost", "redis://"),
        ("redis_url", "localhost:6379", "redis://"),
        ("shards", "many", "a whole number is needed"),
        ("shards", "0", "1 to 1024"),
        ("shards", "1025", "1 to 1024"),
        ("project", "p" * 201, "1 to 200 characters"),
        ("redact_keys", "a,--", "at least one letter or digit"),
        ("buffer_events", "0", "1 to"),
        ("buffer_events", "1.5", "a whole number is needed"),
        ("buffer_bytes", "100", "1048576 to"),
        ("heartbeat_s", "soon", "a number of seconds is needed"),
        ("heartbeat_s", "-1", "0 sends none"),
        ("exit_flush_s", "inf", "0 does not wait"),
        ("exit_flush_s", "nan", "0 does not wait"),
        ("backpressure", "drop", "`spool`, `block`, `drop_oldest`"),
        ("spool_bytes", "100", "1048576 to"),
    ],
)
def test_a_wrong_value_names_the_variable_and_what_is_allowed(
    name: str, value: str, allowed: str
) -> None:
    """The message is enough to correct the setting."""
    with pytest.raises(SettingInvalid) as caught:
        read_settings({variable(name): value})
    assert variable(name) in str(caught.value)
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shards", True),
        ("buffer_events", "5"),
        ("heartbeat_s", "5"),
        ("redis_url", 5),
        ("spool_dir", 5),
    ],
)
def test_arguments_are_checked_as_well(name: str, value: Any) -> None:
    """A wrong argument is found when the recorder is made, not when it records."""
    with pytest.raises(SettingInvalid, match=variable(name)):
        read_settings({}, **{name: value})


def test_the_spool_is_in_the_folder_for_state() -> None:
    """As the XDG specification says, relative paths being ignored."""
    assert default_spool_dir({"XDG_STATE_HOME": "/state"}) == "/state/runfold/spool"
    for environ in ({}, {"XDG_STATE_HOME": "state"}):
        assert default_spool_dir(environ) == str(Path.home() / ".local/state/runfold/spool")


def test_a_message_does_not_show_a_password() -> None:
    """The URL of an error message is without credentials."""
    with pytest.raises(SettingInvalid) as caught:
        read_settings({"RUNFOLD_REDIS_URL": "http://user:hunter2@host"})
    assert "hunter2" not in str(caught.value)
    assert "host" in str(caught.value)


def test_the_recorder_reads_the_environment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set after it was made does not reach a recorder."""
    monkeypatch.setenv("RUNFOLD_PROJECT", "first")
    recorder = Recorder()
    monkeypatch.setenv("RUNFOLD_PROJECT", "second")
    assert recorder.settings.project == "first"


def test_every_setting_is_documented() -> None:
    """The table in the README names each variable with its default, and nothing else."""
    readme = (Path(__file__).parents[3] / "producers" / "README.md").read_text()
    rows = dict(re.findall(r"^\| `(RUNFOLD_\w+)` \| (.*?) \|", readme, re.MULTILINE))
    assert set(rows) == {variable(name) for name in Settings.__struct_fields__}
    for name in (
        "redis_url",
        "buffer_events",
        "buffer_bytes",
        "heartbeat_s",
        "exit_flush_s",
        "backpressure",
        "spool_bytes",
    ):
        default = getattr(Settings(), name)
        assert rows[variable(name)].strip("`") == str(default).removesuffix(".0")


def test_every_sensitive_key_is_documented() -> None:
    """The README lists what is masked without any setting."""
    readme = (Path(__file__).parents[3] / "producers" / "README.md").read_text()
    section = readme[readme.index("## Redaction") : readme.index("## Settings")]
    for key in DEFAULT_KEYS:
        singular = key.removesuffix("s") if key.endswith(" tokens") else key
        assert f"`{singular.split()[-1] if 'token' in key else singular}`" in section

"""Settings of the command line."""

import re
from pathlib import Path

import pytest

from runfold.errors import SettingInvalid
from runfold_stack.settings import DEFAULT_API_PORT, VARIABLES, Settings, read_settings
from runfold_storage.checkpoints.liveness_limits import Limit, Limits

README = Path(__file__).parents[3] / "deploy" / "README.md"


def test_without_variables_there_are_defaults() -> None:
    """No variable is required."""
    settings = read_settings({}, as_root=True)
    spool_dir = Path("~/.local/state/runfold/spool").expanduser()
    assert settings == Settings(home=Path("/var/lib/runfold"), spool_dir=spool_dir)


def test_an_empty_variable_is_an_unset_one() -> None:
    """Shells and compose files set empty variables."""
    empty = dict.fromkeys(VARIABLES, " ")
    assert read_settings(empty, as_root=True) == read_settings({}, as_root=True)


def test_variables_are_read() -> None:
    """Each variable arrives in its field."""
    settings = read_settings(
        {
            "RUNFOLD_REDIS_URL": "redis://r:6379/1",
            "RUNFOLD_DATABASE_URL": "postgresql://u:p@d/x",
            "RUNFOLD_SHARDS": "16",
            "RUNFOLD_HOME": "/srv/runfold",
            "RUNFOLD_PROJECT": "acme",
            "RUNFOLD_WORKERS": "2",
            "RUNFOLD_API_HOST": "0.0.0.0",
            "RUNFOLD_API_PORT": "9000",
            "RUNFOLD_API_URL": "https://runfold.example/",
            "RUNFOLD_METRICS_HOST": "::",
            "RUNFOLD_METRICS_PORT": "0",
            "RUNFOLD_LOST_AFTER_S": "600, nightly=86400,a=b=0",
            "RUNFOLD_LOST_QUEUED_AFTER_S": "acme=0.5",
            "RUNFOLD_LOG_LEVEL": "WARNING",
            "RUNFOLD_REDACT_KEYS": "iban, -cookie",
            "RUNFOLD_MAX_FUTURE_S": "3600",
            "RUNFOLD_SPOOL_DIR": "/srv/spool",
            "RUNFOLD_SPOOL_BYTES": "2000000",
        },
        as_root=False,
    )
    assert settings == Settings(
        home=Path("/srv/runfold"),
        redis_url="redis://r:6379/1",
        database_url="postgresql://u:p@d/x",
        shards=16,
        project="acme",
        workers=2,
        api_host="0.0.0.0",
        api_port=9000,
        api_url="https://runfold.example",
        metrics_host="::",
        metrics_port=0,
        limits=Limits(
            running=Limit(600, {"nightly": 86_400, "a=b": 0}),
            queued=Limit(86_400, {"acme": 0.5}),
        ),
        redact_keys=("iban", "-cookie"),
        max_future_s=3600,
        log_level="warning",
        spool_dir=Path("/srv/spool"),
        spool_bytes=2_000_000,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RUNFOLD_REDIS_URL", "http://x"),
        ("RUNFOLD_DATABASE_URL", "mysql://x"),
        ("RUNFOLD_SHARDS", "0"),
        ("RUNFOLD_SHARDS", "²"),
        ("RUNFOLD_WORKERS", "-1"),
        ("RUNFOLD_API_PORT", "65536"),
        ("RUNFOLD_API_URL", "localhost:8420"),
        ("RUNFOLD_METRICS_PORT", "-1"),
        ("RUNFOLD_SPOOL_BYTES", "1 GB"),
        ("RUNFOLD_LOST_AFTER_S", "1h"),
        ("RUNFOLD_LOST_AFTER_S", "3600,nan"),
        ("RUNFOLD_LOST_QUEUED_AFTER_S", "acme"),
        ("RUNFOLD_LOG_LEVEL", "loud"),
        ("RUNFOLD_PROJECT", "x" * 201),
    ],
)
def test_an_invalid_value_is_refused(name: str, value: str) -> None:
    """The error names the variable."""
    with pytest.raises(SettingInvalid, match=name):
        read_settings({name: value}, as_root=True)


def test_an_error_does_not_show_a_password() -> None:
    """The message omits a URL that may contain a password."""
    with pytest.raises(SettingInvalid) as caught:
        read_settings({"RUNFOLD_DATABASE_URL": "mysql://u:hunter2@d/x"}, as_root=True)
    assert "hunter2" not in str(caught.value)


def test_the_readme_lists_every_setting() -> None:
    """The table has a row for each variable, and the true default where that is a value."""
    rows = re.findall(r"^\| `(RUNFOLD_\w+)` \| (.*) \| .* \|$", README.read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == list(VARIABLES)
    settings = read_settings({}, as_root=True)
    of_fields = {
        name: getattr(settings, name.removeprefix("RUNFOLD_").lower())
        for name in VARIABLES
        if hasattr(settings, name.removeprefix("RUNFOLD_").lower())
    } | {
        "RUNFOLD_API_PORT": DEFAULT_API_PORT,
        "RUNFOLD_PROJECT": "default",
        "RUNFOLD_LOST_AFTER_S": settings.limits.running.default_s,
        "RUNFOLD_LOST_QUEUED_AFTER_S": settings.limits.queued.default_s,
        "RUNFOLD_MAX_FUTURE_S": round(settings.max_future_s),
    }
    written = {name: re.match(r"`?([\d.]+|default|info)\b", default) for name, default in rows}
    values = {name: found[1] for name, found in written.items() if found is not None}
    assert len(values) == 11
    assert values == {name: str(of_fields[name]) for name in values}

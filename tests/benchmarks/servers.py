"""Servers of our own, as durable as `runfold up` has them, and fresh databases on them."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

import psycopg
import redis

from databases import create_database, drop_database
from runfold_stack.servers.local_stack import LocalStack, open_stack
from runfold_stack.servers.postgres_server import PostgresServer
from runfold_stack.servers.redis_server import RedisServer
from runfold_storage.migrate import migrate

_WORN_SEGMENTS: Final = 20
_DROP_CACHES: Final = Path("/proc/sys/vm/drop_caches")
_SETTINGS: Final = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_compression",
    "wal_level",
    "shared_buffers",
    "wal_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "autovacuum",
    "data_checksums",
    "io_method",
    "jit",
)


_FILL_BUFFERS: Final = """
    CREATE UNLOGGED TABLE worn (page text STORAGE PLAIN);
    INSERT INTO worn SELECT repeat('x', 8000) FROM generate_series(
        1, (SELECT setting::int FROM pg_settings WHERE name = 'shared_buffers')
    );
    DROP TABLE worn
"""
"""A row a page; CREATE TABLE AS and COPY would go through a few buffers again and again."""


class Servers:
    """One Redis and one PostgreSQL."""

    def __init__(self, stack: LocalStack) -> None:
        self.redis_url = stack.endpoints.redis_url
        self._postgres = next(s for s in stack.owned if isinstance(s, PostgresServer))
        self._redis = next(s for s in stack.owned if isinstance(s, RedisServer))
        self._numbers = count(1)

    @property
    def pids(self) -> dict[str, int | None]:
        """By the name of the server."""
        return {"postgresql": self._postgres.pid, "redis": self._redis.pid}

    @contextmanager
    def database(self) -> Iterator[str]:
        """An empty Redis and the URL of a new database with our schema, gone after the block."""
        name = f"bench_{next(self._numbers)}"
        self.empty_redis()
        url = create_database(self._postgres, name)
        migrate(url)
        try:
            yield url
        finally:
            drop_database(self._postgres, name)
            self.empty_redis()

    def empty_redis(self) -> None:
        """Forget everything, and have it off the disk too."""
        with redis.Redis.from_url(self.redis_url) as client:
            client.flushall()
            _await_no_rewrite(client)
            client.bgrewriteaof()
            _await_no_rewrite(client)

    def settle(self, database_url: str) -> None:
        """Let both servers finish what they do in the background, before a clock starts."""
        with redis.Redis.from_url(self.redis_url) as client:
            _await_no_rewrite(client)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    def wear_in(self, database_url: str) -> None:
        """Have what a server has that has been at work for an hour: WAL to use again, and buffers.

        A new segment is filled with zeros first, some 20 ms within a COMMIT; the system clears each
        page of the buffers when it is first used, which took 4% of both cores.
        """
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(_FILL_BUFFERS)
            for _ in range(_WORN_SEGMENTS):
                connection.execute("SELECT pg_logical_emit_message(true, 'bench', '')")
                connection.execute("SELECT pg_switch_wal()")
            connection.execute("CHECKPOINT")

    def make_cold(self) -> str | None:
        """Restart PostgreSQL with nothing in the page cache; the reason, where we may not."""
        if not os.access(_DROP_CACHES, os.W_OK):
            return f"needs to write {_DROP_CACHES}: run as root on Linux"
        self._postgres.stop()
        os.sync()
        try:
            _DROP_CACHES.write_text("1\n")
        except OSError as error:
            return f"{_DROP_CACHES} refuses: {error.strerror}"
        finally:
            self._postgres.start()
        return None

    def versions(self) -> dict[str, str]:
        """Of Redis, and of PostgreSQL with the settings that matter here."""
        with redis.Redis.from_url(self.redis_url, decode_responses=True) as client:
            info = client.info("server")
            append = client.config_get("append*")
        found = {"redis": str(info.get("valkey_version") or info["redis_version"])}
        found |= {f"redis.{name}": str(append[name]) for name in ("appendonly", "appendfsync")}
        with psycopg.connect(self._postgres.url) as connection:
            rows = connection.execute(
                """
                SELECT name, current_setting(name) FROM pg_settings
                WHERE name = ANY(%s) ORDER BY name
                """,
                (list(_SETTINGS),),
            )
            return found | {f"postgresql.{name}": value for name, value in rows}


@contextmanager
def open_servers(folder: Path | None) -> Iterator[Servers]:
    """Start them in a temporary folder (inside `folder`, if given), gone after the block."""
    with tempfile.TemporaryDirectory(prefix="runfold-bench-", dir=folder) as name:
        os.chmod(name, 0o755)
        with open_stack(Path(name) / "data", die_with_parent=True) as stack:
            yield Servers(stack)


def _await_no_rewrite(client: redis.Redis) -> None:
    """A rewrite of the append-only file must not fall into what is timed."""
    while True:
        info = client.info("persistence")
        if not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]:
            return
        time.sleep(0.05)

"""An embedded PostgreSQL on a Unix socket.

Promises: a commit that was reported survives the server's death, whatever the cause. The folder
holds `data` (the cluster), the log and the socket. Only the folder's owner and root can enter it;
they need no password, and no other user reaches the server. If the first start is killed halfway,
it leaves `data.new` behind, which the next start replaces: `data` is complete or absent.
"""

from collections.abc import Mapping
from pathlib import Path
from signal import Signals
from typing import Literal

import psycopg
from psycopg import sql

from runfold_stack.errors import StackError

from . import postgres_cluster
from .binaries import Program, find_postgres, probe
from .embedded_server import EmbeddedServer
from .owned_folder import Identity
from .postgres_cluster import PORT, SETTINGS, SOCKET, SUPERUSER

DATABASE = "runfold"
_MAINTENANCE = "postgres"

# As after a crash, but in order: the next start replays the log.
_IMMEDIATE = ((Signals.SIGQUIT, 10.0), (Signals.SIGKILL, 30.0))


class PostgresServer(EmbeddedServer):
    """`settings` override `postgres_cluster.SETTINGS`."""

    name = "postgres"
    _socket_name = SOCKET
    # The postmaster ends its children and frees its shared memory.
    _death_signal = Signals.SIGQUIT
    # Sessions are cut off; the next start has nothing to recover.
    _stop_steps = ((Signals.SIGINT, 60.0), *_IMMEDIATE)
    _abort_steps = _IMMEDIATE

    def __init__(
        self,
        data_dir: Path,
        *,
        binary: Path | None = None,
        settings: Mapping[str, str] | None = None,
        die_with_parent: bool = False,
    ) -> None:
        super().__init__(data_dir, binary=binary, die_with_parent=die_with_parent)
        self._cluster = self.data_dir / "data"
        self._settings = {**SETTINGS, **(settings or {})}

    @property
    def url(self) -> str:
        """The URL of the database `runfold`, for psycopg and SQLAlchemy."""
        return self.url_for(DATABASE)

    def url_for(self, database: str) -> str:
        """Return the URL of one of the server's databases."""
        # The port is named because libpq would otherwise ask PGPORT.
        return f"postgresql://{SUPERUSER}@/{database}?host={self._socket_folder}&port={PORT}"

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """End the server; do nothing if none runs. After `immediate` the next start recovers."""
        self._end(self._stop_steps if mode == "fast" else _IMMEDIATE)

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create a copy of `template`, which must have no open connection; return its URL."""
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self._administer(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return self.url_for(name)

    def drop_database(self, name: str) -> None:
        """Drop a database and close all connections to it; only tests need this."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self._administer(statement.format(sql.Identifier(name)))

    def _find_program(self) -> Program:
        major = postgres_cluster.major_of(self._cluster)
        program = probe(self._binary) if self._binary else find_postgres(major=major)
        if major is not None and program.major != major:
            raise StackError(
                f"{self._cluster} was written by PostgreSQL {major}, which {program.path} "
                f"({program.version}) cannot read. Install PostgreSQL {major}, or choose another "
                "data directory and move the data with pg_dump or pg_upgrade."
            )
        return program

    def _prepare(self, program: Path, identity: Identity | None) -> list[str]:
        if not self._cluster.exists():
            sync = self._settings["fsync"] == "on"
            postgres_cluster.create(self._cluster, program, identity, sync=sync)
        postgres_cluster.clear_pid_files(self._cluster, self._socket_folder)
        postgres_cluster.configure(self._cluster, program, identity, self._settings)
        folders = ("-D", str(self._cluster), "-k", str(self._socket_folder))
        return [str(program), *folders, "-p", str(PORT)]

    def _ping(self) -> bool:
        try:
            # Not DATABASE: another process may be starting the server and not have made it yet.
            psycopg.connect(self.url_for(_MAINTENANCE), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _finish_start(self) -> None:
        with psycopg.connect(self.url_for(_MAINTENANCE), autocommit=True) as connection:
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(query, [DATABASE]).fetchone() is not None:
                return
        self.create_database(DATABASE)

    def _administer(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url_for(_MAINTENANCE), autocommit=True) as connection:
            connection.execute(statement)

"""An embedded PostgreSQL on a Unix socket; its cluster is the folder `data` beside the log."""

from collections.abc import Mapping
from pathlib import Path
from signal import Signals
from typing import Literal

import psycopg

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
        return self.url_for(DATABASE)

    def url_for(self, database: str) -> str:
        # The port is named because libpq would otherwise ask PGPORT.
        return f"postgresql://{SUPERUSER}@/{database}?host={self._socket_folder}&port={PORT}"

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """End the server; do nothing if none runs. After `immediate` the next start recovers."""
        self._end(self._stop_steps if mode == "fast" else _IMMEDIATE)

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
            if connection.execute(query, [DATABASE]).fetchone() is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")

"""A PostgreSQL of our own, on a Unix socket, its data kept in one folder.

Promises: a commit that was reported survives the server's death, whatever the
cause. The folder holds `data` (the cluster), the log and the socket; whoever
may enter it (its owner and root) is let in without a password, nobody else
reaches the server. A first start that is killed halfway leaves `data.new`
behind, which the next start replaces: `data` is there whole or not at all.
"""

import signal
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Literal, Self

import psycopg
from psycopg import sql

from runfold_stack.errors import StackError

from . import postgres_cluster
from .binaries import find_postgres, probe
from .daemon import Daemon
from .postgres_cluster import PORT, SETTINGS, SOCKET, SUPERUSER
from .privileges import command_as, prepare_data_dir
from .sockets import claim_socket_folder, is_private, socket_folder

DATABASE = "runfold"
_MAINTENANCE = "postgres"

_STOPS = {
    # Sessions are cut off; the next start has nothing to recover.
    "fast": ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 30.0)),
    # As after a crash, but in order: the next start replays the log.
    "immediate": ((signal.SIGQUIT, 10.0), (signal.SIGKILL, 30.0)),
}
_KILL = ((signal.SIGKILL, 30.0),)


class PostgresServer:
    """The server in the folder `data_dir`, which may run already.

    `settings` go on top of `postgres_settings.SETTINGS`. With `die_with_parent`
    the server shuts down when the thread that started it ends (Linux only): for
    tests.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        binary: Path | None = None,
        settings: Mapping[str, str] = MappingProxyType({}),
        die_with_parent: bool = False,
        start_timeout_s: float = 600.0,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self._cluster = self.data_dir / "data"
        self._binary = binary
        self._settings = {**SETTINGS, **settings}
        # The postmaster takes its children along, and frees its shared memory.
        self._death_signal = signal.SIGQUIT if die_with_parent else None
        self._start_timeout_s = start_timeout_s
        self._daemon = Daemon(self.data_dir, "postgres")

    @property
    def _socket_folder(self) -> Path:
        return socket_folder(self.data_dir, SOCKET)

    @property
    def url(self) -> str:
        """The URL of the database `runfold`, for psycopg and SQLAlchemy."""
        return self.url_for(DATABASE)

    def url_for(self, database: str) -> str:
        """Return the URL of one of the server's databases."""
        # The port is named because libpq would otherwise ask PGPORT.
        return f"postgresql://{SUPERUSER}@/{database}?host={self._socket_folder}&port={PORT}"

    @property
    def pid(self) -> int | None:
        """The postmaster's pid, whoever started it; None if it does not run."""
        return self._daemon.pid

    @property
    def log_path(self) -> Path:
        """Where the server logs."""
        return self._daemon.log_path

    def start(self) -> None:
        """Start the server, making the cluster first if need be, and wait until it answers.

        AlreadyRunningError if the folder is being served; StartFailedError with the end of the
        server's log if it gives up. Either way nothing is left running that was not before.
        """
        major = postgres_cluster.major_of(self._cluster)
        program = probe(self._binary) if self._binary else find_postgres(major=major)
        if major is not None and program.major != major:
            raise StackError(
                f"{self._cluster} was written by PostgreSQL {major}, which {program.path} "
                f"({program.version}) cannot read. Install PostgreSQL {major}, or choose another "
                "data directory and move the data with pg_dump or pg_upgrade."
            )
        identity = prepare_data_dir(self.data_dir, program.path)
        with self._daemon.claim(identity) as lock:
            if not self._cluster.exists():
                sync = self._settings["fsync"] == "on"
                postgres_cluster.create(self._cluster, program.path, identity, sync=sync)
            claim_socket_folder(self._socket_folder, self.data_dir, identity)
            postgres_cluster.clear_pid_files(self._cluster, self._socket_folder)
            postgres_cluster.configure(self._cluster, program.path, identity, self._settings)
            command = [str(program.path), "-D", str(self._cluster), "-p", str(PORT)]
            command += ["-k", str(self._socket_folder)]
            command = command_as(identity, command, death_signal=self._death_signal)
            self._daemon.spawn(lock, command, postgres_cluster.environment(), identity)
        try:
            self._daemon.await_ready(self.answers, self._start_timeout_s)
            self._ensure_database()
        except BaseException:
            self.stop("immediate")
            raise

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """End the server, whoever started it; do nothing if none runs."""
        self._daemon.end(_STOPS[mode])

    def kill(self) -> None:
        """End the postmaster as a crash would (SIGKILL); wait until its children are gone too."""
        self._daemon.end(_KILL)

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server, if it runs, and start it on the same data."""
        self.stop(mode)
        self.start()

    def answers(self) -> bool:
        """Tell whether a server answers at `url`; not while it is recovering from a crash."""
        if not is_private(self._socket_folder, self.data_dir):
            return False
        try:
            # Not DATABASE: another process may be starting us and not have made it yet.
            psycopg.connect(self.url_for(_MAINTENANCE), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create a database as a copy of `template`, which nobody may be using; return its URL."""
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self._administer(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return self.url_for(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, cutting off whoever is connected to it."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self._administer(statement.format(sql.Identifier(name)))

    def _ensure_database(self) -> None:
        with psycopg.connect(self.url_for(_MAINTENANCE), autocommit=True) as connection:
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(query, [DATABASE]).fetchone() is not None:
                return
        self.create_database(DATABASE)

    def _administer(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url_for(_MAINTENANCE), autocommit=True) as connection:
            connection.execute(statement)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

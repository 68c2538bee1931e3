"""`runfold` over an archive, as an operator uses it."""

import json
import signal
from pathlib import Path

import pytest

from acceptance.cli_processes import environ, runfold
from expired_runs import EVENTS, EXEMPT_PROJECT_RUNS, OLD_NAMED_RUNS, OLD_RUNS
from folded_events import fold_events
from oracle import to_envelope
from runfold.protocol.codec import encode_event


@pytest.fixture
def env(migrated_url: str, tmp_path: Path) -> dict[str, str]:
    """A history of which most was archived."""
    fold_events(migrated_url, [json.loads(encode_event(to_envelope(event))) for event in EVENTS])
    env = environ(RUNFOLD_DATABASE_URL=migrated_url, RUNFOLD_ARCHIVE=str(tmp_path / "archive"))
    assert runfold("retention", "set", "--payloads", "30", "--runs", "65", env=env).returncode == 0
    done = runfold("retention", "run", env=env)
    assert done.returncode == 0, done
    assert b"archived 24 events and 6 runs before" in done.stdout
    return env


def test_show_opens_archived_runs(env: dict[str, str]) -> None:
    """And says that they are; without the archive it does not know them."""
    gone, aged = OLD_RUNS[0][0]["run"], OLD_RUNS[3][0]["run"]
    shown = runfold("show", gone, env=env)
    assert shown.returncode == 0, shown
    assert b"from the archive" in shown.stdout
    assert json.loads(runfold("show", gone, "--json", env=env).stdout)["source"] == "archive"
    events = json.loads(runfold("show", gone, "--events", "--json", env=env).stdout)["events"]
    assert [event["type"] for event in events] == [event["type"] for event in OLD_RUNS[0]]
    assert b"from the archive" in runfold("show", aged, env=env).stdout
    without = {**env, "RUNFOLD_ARCHIVE": ""}
    assert runfold("show", gone, env=without).returncode == 1
    assert b"have expired on 20" in runfold("show", aged, env=without).stdout


def test_delete_takes_archived_runs(env: dict[str, str]) -> None:
    """By their ids; then nobody is shown them."""
    own = OLD_NAMED_RUNS[0][0]["run"]
    assert runfold("delete", own, "--yes", env=env).returncode == 0
    assert runfold("show", own, env=env).returncode == 1
    assert runfold("delete", own, "--yes", env=env).returncode == 1
    purged = json.loads(runfold("retention", "purge", "--json", env=env).stdout)
    assert purged == {"files": 3, "events": len(OLD_NAMED_RUNS[0])}
    assert runfold("retention", "purge", env={**env, "RUNFOLD_ARCHIVE": ""}).returncode == 2


def test_an_archive_that_cannot_be(env: dict[str, str], tmp_path: Path) -> None:
    """A setting that makes no sense is told; a place that refuses leaves everything."""
    bad = runfold("show", "x", env={**env, "RUNFOLD_ARCHIVE": "not/absolute"})
    assert bad.returncode == 2
    assert b"RUNFOLD_ARCHIVE" in bad.stderr
    (tmp_path / "file").write_text("")
    refused = runfold("retention", "run", env={**env, "RUNFOLD_ARCHIVE": str(tmp_path / "file")})
    assert refused.returncode == 1
    assert str(tmp_path / "file").encode() in refused.stderr
    unknown = runfold("retention", "run", env={**env, "RUNFOLD_ARCHIVE": "nonsense://x"})
    assert unknown.returncode == 1
    assert b"nonsense://x" in unknown.stderr


def test_restore_into_an_empty_database(
    env: dict[str, str], other_url: str, tmp_path: Path
) -> None:
    """Killed and called again it goes on; verify finds nothing; done again it changes nothing."""
    place = env["RUNFOLD_ARCHIVE"]
    new = environ(RUNFOLD_DATABASE_URL=other_url)
    killed = runfold("restore", "--from", place, env={**new, "RUNFOLD_CRASH_AT": "after_progress"})
    assert killed.returncode == -signal.SIGKILL
    done = runfold("restore", "--from", place, env=new)
    assert done.returncode == 0, done
    assert b"resuming" in done.stderr
    gone = [*OLD_RUNS, *OLD_NAMED_RUNS, *EXEMPT_PROJECT_RUNS]
    listed = json.loads(runfold("runs", "--json", env=new).stdout)["runs"]
    assert {run["id"] for run in listed} == {run[0]["run"] for run in gone}
    assert runfold("verify", env=new).returncode == 0
    again = json.loads(runfold("restore", "--from", place, "--json", env=new).stdout)
    assert again == {"events": 0, "runs": 0, "rollups": 0}


def test_restore_refuses_nonsense(env: dict[str, str], other_url: str, tmp_path: Path) -> None:
    """With a line that says what to do."""
    new = environ(RUNFOLD_DATABASE_URL=other_url)
    assert runfold("restore", env=new).returncode == 2
    nothing = runfold("restore", "--from", str(tmp_path / "nothing"), env=new)
    assert nothing.returncode == 1
    assert b"nothing in it" in nothing.stderr
    twice = runfold("restore", env=env)
    assert twice.returncode == 1
    assert b"would count twice" in twice.stderr

"""The command line, on a stack that `runfold up` has started."""

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from acceptance.cli_processes import RUNFOLD, Up, environ, is_alive, runfold, wait_for
from runfold_stack.servers.postgres_server import PostgresServer
from runfold_stack.servers.redis_server import RedisServer
from runfold_storage.history import History

MONTAGE = {
    "name": "tiny",
    "schemaVersion": "1.5",
    "workflow": {
        "specification": {
            "tasks": [
                {"name": "first", "id": "1", "parents": [], "children": ["2"]},
                {"name": "second", "id": "2", "parents": ["1"], "children": []},
            ],
            "files": [],
        },
        "execution": {
            "makespanInSeconds": 3,
            "executedAt": "2024-05-01T10:00:00Z",
            "tasks": [
                {"id": "1", "runtimeInSeconds": 1},
                {"id": "2", "runtimeInSeconds": 2},
            ],
        },
    },
}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One stack for all tests here."""
    up = Up(tmp_path_factory.mktemp("up") / "home")
    yield up
    assert up.stop() == 0, up.log()


def ask(up: Up, *words: str, exit_code: int = 0) -> Any:
    """The JSON document that a command prints."""
    answer = runfold(*words, "--json", env=up.env)
    assert answer.returncode == exit_code, answer
    return json.loads(answer.stdout)


def await_run(up: Up, run: str, status: str) -> None:
    """Wait until a run has this status."""

    def has_come() -> bool:
        details = history.run(run)
        return details is not None and details.status == status

    with History(up.state["database_url"], pool_size=1) as history:
        wait_for(has_come, f"run {run} to be {status}")


def test_up_prints_all_addresses(up: Up) -> None:
    """Once `up` is ready its API answers at the URL that it printed."""
    with urllib.request.urlopen(f"{up.state['api_url']}/healthz", timeout=10) as answer:
        assert answer.status == 200
    assert up.state["data_dir"] == str(up.home)
    assert up.state["pid"] == up.process.pid
    assert up.state["redis_url"].startswith("unix://")


def test_up_prints_the_metrics_addresses(up: Up) -> None:
    """The API's, and those of each worker."""
    of_api, of_worker = up.state["metrics_urls"]
    assert of_api == f"{up.state['api_url']}/metrics"
    for url, series in ((of_api, b"runfold_lag_frames"), (of_worker, b"runfold_worker_restarts")):
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert series in answer.read()


def test_a_worker_whose_metrics_port_is_taken_fails(up: Up) -> None:
    """And folds nothing unseen: its exit code is 1."""
    port = up.state["api_url"].rpartition(":")[2]
    answer = runfold("worker", "--metrics-port", port, env=up.env)
    assert answer.returncode == 1
    assert f"port {port}".encode() in answer.stderr
    assert b"RUNFOLD_METRICS_PORT" in answer.stderr


def test_a_second_up_leaves_the_first_alone(up: Up) -> None:
    """A second `up` on the same data directory ends with 1 and names the first one's API."""
    second = runfold("up", env=up.env)
    assert second.returncode == 1
    assert up.state["api_url"].encode() in second.stderr
    assert b"runfold down" in second.stderr
    assert up.process.poll() is None


def test_a_recorded_command_can_be_listed_and_shown(up: Up) -> None:
    """What `exec` recorded is in `runs`, and `show` has its error and output."""
    script = "echo working; echo 'no such table' >&2; exit 4"
    executed = runfold(
        *("exec", "--workflow", "nightly", "--run", "listed-1", "--tag", "team=a"),
        *("--", "sh", "-c", script),
        env=up.env,
    )
    assert executed.returncode == 4
    await_run(up, "listed-1", "failed")
    details = ask(up, "show", "listed-1")
    assert details["exit_code"] == 4
    assert details["tags"] == {"team": "a"}
    assert details["error"]["message"] == "exit code 4: no such table"
    listed = ask(up, "runs", "--workflow", "nightly", "--status", "failed")
    assert [run["id"] for run in listed["runs"]] == ["listed-1"]
    shown = runfold("show", "listed-1", env=up.env).stdout.decode()
    assert "error: ExitCode: exit code 4: no such table" in shown
    assert "working" in shown
    logs = runfold("show", "listed-1", "--logs", env=up.env).stdout
    assert sorted(logs.splitlines()) == [b"no such table", b"working"]
    other = runfold("runs", "--workflow", "nosuch", env=up.env)
    assert b"no runs match these filters" in other.stderr
    table = runfold("runs", env=up.env).stdout.decode()
    assert "nightly" in table
    assert "\x1b" not in table


def test_logs_are_the_output_byte_for_byte(up: Up) -> None:
    """A last line without an end gets none, and a line that came in pieces stays one."""
    script = "printf 'is it '; sleep 1.5; printf 'you?\\n\\nyes'"
    runfold("exec", "--run", "pieces", "--", "sh", "-c", script, env=up.env)
    await_run(up, "pieces", "completed")
    assert runfold("show", "pieces", "--logs", env=up.env).stdout == b"is it you?\n\nyes"


def test_the_end_of_the_output(up: Up) -> None:
    """Only so many lines, or events; of one node, if one is named."""
    lines = [
        {"type": "logged", "run": "long", "at": f"2026-11-20T10:00:{n:02}Z", "text": f"line {n}"}
        for n in range(50)
    ]
    lines[3]["node"] = "extract"
    events = b"\n".join(json.dumps(line).encode() for line in lines)
    assert runfold("emit", "-", env=up.env, stdin=events).returncode == 0
    await_run(up, "long", "running")

    def shown(*words: str) -> list[bytes]:
        return runfold("show", "long", *words, env=up.env).stdout.splitlines()

    assert shown("--logs", "--tail", "2") == [b"line 48", b"line 49"]
    assert shown("--logs", "--node", "extract") == [b"line 3"]
    last = ask(up, "show", "long", "--events", "--tail", "7")["events"]
    assert [event["text"] for event in last] == [f"line {n}" for n in range(43, 50)]
    end = shown("--tail", "1")
    assert b"line 49" in end[-1]
    assert not any(b"line 48" in line for line in end)


def test_an_unknown_revision_is_refused_before_anything_else(up: Up) -> None:
    """`migrate --to` names the newest revision when it is given none that exists."""
    answer = runfold("migrate", "--to", "nosuch", env=up.env)
    assert answer.returncode == 2
    assert b"--to nosuch: there is no such revision" in answer.stderr


def test_events_of_a_run_can_be_shown(up: Up) -> None:
    """`show --events` prints each event, one a line."""
    runfold("exec", "--run", "events-1", "--", "true", env=up.env)
    await_run(up, "events-1", "completed")
    shown = runfold("show", "events-1", "--events", env=up.env).stdout.decode()
    assert [line.split()[1] for line in shown.splitlines()] == ["started", "completed"]
    events = ask(up, "show", "events-1", "--events")["events"]
    assert [event["type"] for event in events] == ["started", "completed"]


def test_an_unknown_run_is_a_failure(up: Up) -> None:
    """`show` of a run that does not exist ends with 1 and names the command that lists runs."""
    answer = runfold("show", "unknown", env=up.env)
    assert answer.returncode == 1
    assert answer.stderr == b"runfold: there is no run 'unknown': `runfold runs` lists them\n"


def test_emit_takes_the_good_lines_and_reports_the_broken_ones(up: Up) -> None:
    """A broken line is named with its number and reason; its neighbours are folded."""
    lines = [
        b'{"type":"started","run":"emit-1","at":"2026-11-21T02:00:00Z","workflow":"emitted"}',
        b"not json",
        b"",
        b'{"type":"exploded","run":"emit-1","at":"2026-11-21T02:00:01Z"}',
        b'{"type":"completed","run":"emit-1","at":"2026-11-21T02:00:05Z","exit_code":0}',
    ]
    answer = runfold("emit", "--json", env=up.env, stdin=b"\n".join(lines))
    assert answer.returncode == 1
    document = json.loads(answer.stdout)
    assert document["accepted"] == 2
    assert [entry["line"] for entry in document["lines"]] == [2, 4]
    assert b"runfold: line 2: not JSON" in answer.stderr
    assert b"runfold: line 4: unknown type 'exploded'" in answer.stderr
    await_run(up, "emit-1", "completed")
    assert ask(up, "show", "emit-1")["duration_ms"] == 5000


def test_emitting_a_file_again_changes_nothing(up: Up, tmp_path: Path) -> None:
    """Events without ids that are sent twice count once."""
    path = tmp_path / "events.ndjson"
    path.write_text(
        '{"type":"started","run":"twice-1","at":"2026-11-21T02:00:00Z","workflow":"twice"}\n'
        '{"type":"annotated","run":"twice-1","at":"2026-11-21T02:00:01Z",'
        '"usage":{"input_tokens":7}}\n'
        '{"type":"completed","run":"twice-1","at":"2026-11-21T02:00:05Z"}\n'
    )
    for _ in range(2):
        assert ask(up, "emit", str(path)) == {"accepted": 3, "broken": 0, "lines": []}
    marker = '{"type":"completed","run":"twice-1","at":"2026-11-21T02:00:09Z","id":9}'
    runfold("emit", env=up.env, stdin=marker.encode())
    with History(up.state["database_url"], pool_size=1) as history:

        def has_come() -> bool:
            page = history.events("twice-1")
            return page is not None and len(page.events) == 4

        wait_for(has_come, "the marker")
    assert ask(up, "stats", "twice")["usage"]["input_tokens"] == 7


def test_imported_runs_can_be_read_at_once(up: Up, tmp_path: Path) -> None:
    """`import` prints the run's id after it was folded; a broken file does not stop the others."""
    good, broken = tmp_path / "good.json", tmp_path / "broken.json"
    good.write_text(json.dumps(MONTAGE))
    broken.write_text("{}")
    answer = runfold(
        "import", "--format", "wfformat", "--project", "p", str(broken), str(good), env=up.env
    )
    assert answer.returncode == 1
    assert b"broken.json" in answer.stderr
    details = ask(up, "show", answer.stdout.decode().strip())
    assert [node["node"] for node in details["nodes"]] == ["1", "2"]
    assert details["project"] == "p"
    assert details["duration_ms"] == 3000
    words = ("import", "--format", "wfformat", "--json", str(broken), "-")
    again = runfold(*words, env=up.env, stdin=good.read_bytes())
    assert again.returncode == 1
    document = json.loads(again.stdout)
    assert [failed["file"] for failed in document["failed"]] == [str(broken)]
    assert [run["file"] for run in document["runs"]] == ["-"]


def test_an_unknown_format_names_those_that_are_known(up: Up) -> None:
    """`import --format` of something else ends with 2."""
    answer = runfold("import", "--format", "xes", "x", env=up.env)
    assert answer.returncode == 2
    assert b"the formats are: wfformat" in answer.stderr


def _is_replaced(server: RedisServer | PostgresServer, old_pid: int) -> bool:
    return server.pid not in (None, old_pid) and server.answers()


def test_stats_count_by_workflow_and_by_node(up: Up) -> None:
    """`stats` has a line for each workflow; `stats WORKFLOW` one for each of its nodes."""
    events: list[dict[str, Any]] = [
        {"type": "started", "workflow": "counted"},
        {"type": "node_started", "node": "a"},
        {"type": "node_finished", "node": "a", "duration_ms": 10},
        {"type": "completed", "duration_ms": 20},
    ]
    lines = [
        json.dumps({"run": f"counted-{run}", "at": f"2026-11-21T02:00:0{number}Z", **event})
        for run in range(3)
        for number, event in enumerate(events)
    ]
    runfold("emit", env=up.env, stdin="\n".join(lines).encode())
    for run in range(3):
        await_run(up, f"counted-{run}", "completed")
    assert ask(up, "stats", "counted")["nodes"][0]["node"] == "a"
    groups = {group["workflow"]: group for group in ask(up, "stats")["groups"]}
    assert groups["counted"]["total"] == 3
    assert "counted" in runfold("stats", env=up.env).stdout.decode()


def test_failures_that_are_alike_are_one_group(up: Up) -> None:
    """With their number, an example, and a fingerprint that leads to the runs."""

    def failed_after(run: int) -> list[dict[str, Any]]:
        error = {"type": "Timeout", "message": f"after {run} ms"}
        return [{"type": "started", "workflow": "late"}, {"type": "failed", "error": error}]

    lines = [
        json.dumps({"run": f"late-{run}", "at": f"2026-11-21T02:00:0{number}Z", **event})
        for run in range(2)
        for number, event in enumerate(failed_after(run))
    ]
    runfold("emit", env=up.env, stdin="\n".join(lines).encode())
    for run in range(2):
        await_run(up, f"late-{run}", "failed")
    [group] = ask(up, "failures", "--workflow", "late")["failures"]
    assert (group["error_type"], group["runs"]) == ("Timeout", 2)
    alike = ask(up, "runs", "--fingerprint", group["fingerprint"])["runs"]
    assert {run["id"] for run in alike} == {"late-0", "late-1"}
    assert group["example_run"] in runfold("failures", env=up.env).stdout.decode()


def test_a_large_file_is_emitted(up: Up, tmp_path: Path) -> None:
    """Tens of thousands of lines are accepted, all of them."""
    path = tmp_path / "many.ndjson"
    with path.open("w") as file:
        for number in range(20_000):
            file.write(
                f'{{"type":"logged","run":"many-{number % 50}","at":"2026-11-21T02:00:00Z",'
                f'"text":"line {number}"}}\n'
            )
    assert ask(up, "emit", str(path))["accepted"] == 20_000


def test_doctor_finds_a_healthy_stack(up: Up) -> None:
    """Every part is checked and nothing fails."""
    report = ask(up, "doctor")
    assert report["healthy"] is True
    assert {finding["check"] for finding in report["findings"]} >= {
        *("redis", "redis persistence", "redis eviction", "postgresql", "schema"),
        *(
            "partitions",
            "shards",
            "lag",
            "workers",
            "incidents",
            "dead letters",
            "jobs",
            "search",
            "api",
        ),
        *("spool", "metrics"),
    }


def test_doctor_names_remedies_when_nothing_runs(tmp_path: Path) -> None:
    """Without servers it fails, and names `runfold up` and the variables."""
    answer = runfold("doctor", env=environ(RUNFOLD_HOME=str(tmp_path)))
    assert answer.returncode == 1
    for words in (b"runfold up", b"RUNFOLD_REDIS_URL", b"RUNFOLD_DATABASE_URL"):
        assert words in answer.stdout


def test_migrate_has_nothing_to_do(up: Up) -> None:
    """`up` has migrated; `migrate --check` agrees."""
    document = ask(up, "migrate", "--check")
    assert document["before"] == document["head"]


def test_a_reader_that_goes_away_is_no_error(up: Up) -> None:
    """A closed pipe ends a command quietly, with 141."""
    runfold("exec", "--run", "unread", "--", "true", env=up.env)
    await_run(up, "unread", "completed")
    with subprocess.Popen(
        [*RUNFOLD, "show", "--json", "--events", "unread"],
        env=up.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_killed_worker_is_replaced(up: Up) -> None:
    """After a SIGKILL another worker is started, and folds what comes."""
    (first, *_) = up.pids_of("worker 1")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: len(up.pids_of("worker 1")) == 2, "a second worker")
    assert 'how="signal 9"' in up.log()
    runfold("exec", "--run", "after-kill", "--", "true", env=up.env)
    await_run(up, "after-kill", "completed")


def test_stopped_and_killed_stacks_leave_nothing_behind(tmp_path: Path) -> None:
    """SIGTERM ends every process; after a SIGKILL `down` stops the servers; the data stay."""
    home = tmp_path / "home"
    up = Up(home)
    runfold("exec", "--run", "kept", "--", "true", env=up.env)
    await_run(up, "kept", "completed")
    children = up.pids_of("worker 1") + up.pids_of("api")
    assert len(children) == 2
    assert up.stop() == 0
    assert not any(map(is_alive, children))
    assert RedisServer(home / "redis").pid is None
    assert PostgresServer(home / "postgres").pid is None

    again = Up(home)
    await_run(again, "kept", "completed")
    again.stop(signal.SIGKILL)
    children = again.pids_of("worker 1") + again.pids_of("api")
    wait_for(lambda: not any(map(is_alive, children)), "worker and API to follow")
    assert RedisServer(home / "redis").pid is not None
    assert json.loads(runfold("down", "--json", env=again.env).stdout)["stopped"] == [
        "postgres",
        "redis",
    ]
    assert runfold("down", env=again.env).stdout == f"nothing runs in {home}\n".encode()


def test_killed_servers_are_started_again_and_those_of_a_killed_up_adopted(tmp_path: Path) -> None:
    """Whatever dies by SIGKILL comes back with its data; the next `up` then stops what it found."""
    home = tmp_path / "home"
    up = Up(home)
    runfold("exec", "--run", "before", "--", "true", env=up.env)
    await_run(up, "before", "completed")
    servers = RedisServer(home / "redis"), PostgresServer(home / "postgres")
    for server in servers:
        first = server.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_for(partial(_is_replaced, server, first), "a new server")
    assert up.log().count("server ended, restarting it") == 2
    runfold("exec", "--run", "after", "--", "true", env=up.env)
    await_run(up, "after", "completed")

    up.stop(signal.SIGKILL)
    again = Up(home)
    await_run(again, "before", "completed")

    assert again.stop() == 0
    assert [server.pid for server in servers] == [None, None]


@pytest.mark.parametrize(
    ("words", "settings", "exit_code", "message"),
    [
        (["runs"], {}, 3, b"no PostgreSQL is running in"),
        (["emit"], {}, 3, b"no Redis is running in"),
        (["emit"], {"RUNFOLD_REDIS_URL": "redis://127.0.0.1:1"}, 3, b"RUNFOLD_REDIS_URL"),
        (["emit"], {"RUNFOLD_REDIS_URL": "nonsense"}, 2, b"RUNFOLD_REDIS_URL"),
        (
            ["runs"],
            {"RUNFOLD_DATABASE_URL": "postgresql://127.0.0.1:1/x"},
            3,
            b"RUNFOLD_DATABASE_URL",
        ),
        (["runs"], {"RUNFOLD_DATABASE_URL": "nonsense"}, 2, b"RUNFOLD_DATABASE_URL"),
        (["runs"], {"RUNFOLD_SHARDS": "many"}, 2, b"RUNFOLD_SHARDS is 'many'"),
        (["rums"], {}, 2, b"did you mean `runfold runs`?"),
        (["runs", "--limit", "x"], {}, 2, b"--limit: 'x': choose a whole number from 1 to 500"),
        (["api", "--port", "abc"], {}, 2, b"--port: 'abc': choose a whole number from 0 to 65535"),
        (["runs", "--since", "yesterday"], {}, 2, b"or an age like 24h or 7d"),
        (
            ["stats", "--since", "1d", "--until", "2d"],
            {},
            2,
            b"--until: must be later than",
        ),
        (["exec", "--workflow", "", "--", "true"], {}, 2, b"1 to 200 characters"),
        (["runs"], {"RUNFOLD_HOME": "/dev/null/x"}, 1, b"/dev/null is not a folder: set RUNFOLD_"),
        (["down"], {"RUNFOLD_HOME": "/dev/null/x"}, 1, b"/dev/null is not a folder: set RUNFOLD_"),
        (["up"], {"RUNFOLD_HOME": "/dev/null/x"}, 1, b"/dev/null is not a folder: set RUNFOLD_"),
        (["exec"], {}, 2, b"no command is given"),
        (["exec", "--tag", "x", "--", "true"], {}, 2, b"write it as KEY=VALUE"),
    ],
)
def test_an_expected_error_is_one_line(
    words: list[str], settings: dict[str, str], exit_code: int, message: bytes, tmp_path: Path
) -> None:
    """An expected error names the culprit and the remedy, without a traceback."""
    answer = runfold(*words, env=environ(**{"RUNFOLD_HOME": str(tmp_path), **settings}))
    assert answer.returncode == exit_code
    assert message in answer.stderr
    assert b"Traceback" not in answer.stderr


def test_the_help_lists_commands_and_exit_codes() -> None:
    """`--help` has every command and the meaning of the exit codes."""
    text = runfold("--help", env=environ()).stdout.decode()
    for name in ("up", "down", "exec", "runs", "show", "stats", "emit", "import", "doctor"):
        assert f"\n  {name} " in text
    assert "\n  3    Redis or PostgreSQL cannot be reached\n" in text

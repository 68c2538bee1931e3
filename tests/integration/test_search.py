"""Texts searched for: found wherever they stand, whatever the index knows of them by now."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from conditions import wait_until
from folded_events import fold_events, index_all, make_event, make_run_events
from runfold.protocol.ids import make_run_id
from runfold_stack.doctor import postgres_checks
from runfold_stack.doctor.postgres_checks import check_search
from runfold_storage.admin import Admin
from runfold_storage.errors import BadParameter
from runfold_storage.filters.search_text import MAX_PAYLOAD
from runfold_storage.history import History
from runfold_storage.postgres.connections import connect
from runfold_storage.queries.runs import planner
from runfold_storage.read_models.summaries import RunPage, Searched
from runfold_storage.retention.policies import Policy, set_policy
from runfold_storage.retention.run_expiry import mark
from runfold_storage.search import indexer, lookup
from runfold_storage.search.indexer import create_indexes, read_state, restart_scan
from runfold_storage.search.projects import (
    disable_payload_search,
    enable_payload_search,
    read_projects,
)
from runfold_workers.jobs.search_indexing import SearchIndexing
from service_threads import run_api, run_job_worker
from table_reader import count_rows

MANY = 400
"""More runs than are looked at before the index is asked."""


@pytest.fixture
def history(migrated_url: str) -> Iterator[History]:
    """Many runs of workflow `common`, folded and indexed, and the reads of them."""
    fold_events(
        migrated_url,
        [one for n in range(MANY) for one in make_run_events(f"run-{n:04}", n, workflow="common")],
    )
    index_all(migrated_url)
    with History(migrated_url) as reads:
        yield reads


@pytest.fixture
def index_only(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk would find nothing: what is found was looked up."""
    monkeypatch.setattr(planner, "_COMMON_TEXT", 1)

    def walk(*_: Any) -> None:
        raise AssertionError("walked")

    monkeypatch.setattr("runfold_storage.queries.runs.pages.end_of_scan", walk)


def ids(history: History, **filters: Any) -> list[str]:
    return [run.id for run in history.runs(**filters, limit=500).runs]


@pytest.mark.usefixtures("index_only")
def searched_of(page: RunPage) -> Searched:
    """How far the search index had come when a page was read."""
    assert isinstance(page.searched, Searched)
    return page.searched


def test_what_stands_anywhere_is_looked_up(history: History, migrated_url: str) -> None:
    """Id, workflow, tags as they are written, type and message of the error; with a total."""
    uuid = make_run_id()
    fold_events(
        migrated_url,
        [
            *make_run_events(uuid, -9, workflow="Nightly-Report"),
            make_event(
                "started", "tagged", -8, workflow="common", tags={"team": "Blue_Birds", "n": 77}
            ),
            make_event("started", "broken", -7, workflow="common"),
            make_event("failed", "broken", -6, error={"type": "Sad", "message": "100% of\nitems"}),
        ],
    )
    for indexed in (False, True):
        if indexed:
            index_all(migrated_url)
        for q, expected in {
            "nightly-rep": [uuid],
            uuid[3:21].upper(): [uuid],
            "run-0007": ["run-0007"],
            "blue_birds": ["tagged"],
            "bluexbirds": [],
            "team:Blue_Birds": ["tagged"],
            "team=Blue_Birds": ["tagged"],
            'team": "blue': ["tagged"],
            "100% OF": ["broken"],
            "of\nITEM": ["broken"],
            "no such text": [],
        }.items():
            page = history.runs(q=q)
            assert [run.id for run in page.runs] == expected, q
            assert (page.total.value, page.total.relation) == (len(expected), "exact")


@pytest.mark.usefixtures("index_only")
def test_what_changed_since_is_found_as_it_is(history: History, migrated_url: str) -> None:
    """Old runs, too, of which the index still says what they said before."""
    fold_events(
        migrated_url,
        [
            make_event("annotated", "run-0003", 1000, tags={"note": "precious"}),
            make_event("annotated", "run-0005", 1000, tags={"note": "worthless"}),
        ],
    )
    index_all(migrated_url)
    fold_events(
        migrated_url,
        [
            make_event("annotated", "run-0003", 1001, tags={"note": None}),
            make_event("annotated", "run-0004", 1001, tags={"note": "precious"}),
        ],
    )
    assert ids(history, q="precious") == ["run-0004"]
    index_all(migrated_url)
    assert ids(history, q="precious") == ["run-0004"]
    assert ids(history, q="worthless") == ["run-0005"]


@pytest.mark.usefixtures("index_only")
def test_pages_of_what_was_looked_up(history: History) -> None:
    """Cursors lead there and back, with other filters beside it."""
    expected = [f"run-{n:04}" for n in range(39, 29, -1)]
    wanted: dict[str, Any] = {"q": "run-003", "workflow": "common"}
    page = history.runs(**wanted, limit=4)
    found = [run.id for run in page.runs]
    while page.next_cursor:
        page = history.runs(**wanted, limit=4, cursor=page.next_cursor)
        found += [run.id for run in page.runs]
    assert found == expected
    back = [run.id for run in page.runs][::-1]
    while page.prev_cursor:
        page = history.runs(**wanted, limit=4, cursor=page.prev_cursor)
        back += [run.id for run in page.runs][::-1]
    assert back == expected[::-1]
    assert ids(history, q="run-003", workflow="other") == []


def test_what_an_index_cannot_tell_is_walked_to(
    history: History, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two letters, too many matches, an index too far behind or too slow: found all the same."""
    fold_events(migrated_url, make_run_events("the one", -5, workflow="zq"))
    assert ids(history, q="zq") == ["the one"]
    assert len(ids(history, q="common")) == MANY
    with monkeypatch.context() as patch:
        patch.setattr(lookup, "MAX_FOUND", 5)
        assert len(ids(history, q="run-003")) == 10
    with monkeypatch.context() as patch:
        patch.setattr(lookup, "MAX_BEHIND", 0)
        assert ids(history, q="the one") == ["the one"]
    with monkeypatch.context() as patch:
        slow = "SELECT shard, run FROM runs CROSS JOIN pg_sleep(9) LIMIT %(most)s"
        patch.setattr(lookup, "_OF_RUNS", slow)
        assert ids(history, q="the one") == ["the one"]


def test_without_trigrams(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """A PostgreSQL that has no pg_trgm: texts are found by walking, and somebody may ask why."""
    database.execute("DROP EXTENSION pg_trgm CASCADE")
    fold_events(migrated_url, make_run_events("another", -5))
    index_all(migrated_url)
    assert ids(history, q="another") == ["another"]
    assert not read_state(database).has_trigrams


def test_a_feed_that_was_forgotten(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """Runs are read one after the other, and what has no run goes."""
    fold_events(migrated_url, make_run_events("unseen", -5, workflow="rarity"))
    database.execute("DELETE FROM changes")
    state = read_state(database)
    assert state.behind > 0
    assert ids(history, q="rarity") == ["unseen"]
    database.execute("INSERT INTO search_runs (shard, run, text) VALUES (1, %s, 'x')", [_KEY])

    index_all(migrated_url)

    assert read_state(database).behind == 0
    assert count_rows(database, "search_runs") == MANY + 1
    assert ids(history, q="rarity") == ["unseen"]


def test_a_damaged_index_is_made_again(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """Rows that are missing, wrong, or of nobody: page after page, also by several followers."""
    before = database.execute("SELECT * FROM search_runs ORDER BY shard, run").fetchall()
    database.execute("DELETE FROM search_runs WHERE hashtext(run::text) %% 3 = 0", [])
    database.execute("UPDATE search_runs SET text = 'wrong' WHERE hashtext(run::text) %% 3 = 1", [])
    database.execute("INSERT INTO search_runs (shard, run, text) VALUES (1, %s, 'x')", [_KEY])

    restart_scan(database)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexer, "PAGE", 30)
        more, turns = True, 0
        while more:
            with connect(migrated_url, autocommit=True) as connection:
                more = SearchIndexing(connection).turn()
            turns += 1

    assert turns > 2
    assert database.execute("SELECT * FROM search_runs ORDER BY shard, run").fetchall() == before


def test_another_life_of_the_database(history: History, database: psycopg.Connection) -> None:
    """An index that is said to be further than the fold ever was is not believed."""
    database.execute("UPDATE search_progress SET change_seq = change_seq + 1000000")
    assert ids(history, q="run-0007") == ["run-0007"]
    indexer.follow(database)
    while indexer.follow(database).more:
        pass
    assert read_state(database).behind == 0
    assert ids(history, q="run-0007") == ["run-0007"]


def test_one_follows_at_a_time(history: History, migrated_url: str) -> None:
    """The second does nothing until the first one's session has ended."""
    fold_events(migrated_url, make_run_events("newer", -5))
    with connect(migrated_url, autocommit=True) as second:
        with connect(migrated_url, autocommit=True) as first:
            assert indexer.become_follower(first)
            assert not SearchIndexing(second).turn()
            assert read_state(second).behind > 0
        indexing = SearchIndexing(second)
        wait_until(lambda: not indexing.turn() and read_state(second).behind == 0)


def test_what_is_deleted_leaves_the_index_with_it(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """At once, and it does not come back."""
    Admin(migrated_url).delete_runs(q="run-003")
    assert count_rows(database, "search_runs") == MANY - 10
    index_all(migrated_url)
    assert count_rows(database, "search_runs") == MANY - 10
    assert ids(history, q="run-003") == []


def test_a_worker_for_jobs_keeps_it(
    history: History, database: psycopg.Connection, migrated_url: str, redis_url: str
) -> None:
    """Some moments behind the fold, without anybody asking."""
    with run_job_worker(redis_url, migrated_url):
        fold_events(migrated_url, make_run_events("newest", 900))
        wait_until(lambda: count_rows(database, "search_runs") == MANY + 1)


_KEY = "00000000-0000-7000-8000-000000000001"


def paid(run: str, second: float, project: str = "acme", **inputs: Any) -> list[dict[str, Any]]:
    """A run with inputs and outputs of its own and of a node."""
    return [
        make_event(
            "started",
            run,
            second,
            project=project,
            workflow=f"flow-{run}",
            inputs={"order": f"order-{run}", **inputs},
        ),
        make_event("node_started", run, second + 1, node="n", inputs={"letter": f"alpha-{run}"}),
        make_event("node_finished", run, second + 2, node="n", outputs=[f"beta-{run}"]),
        make_event("logged", run, second + 2, text=f"gamma-{run}"),
        make_event("completed", run, second + 3, outputs={"receipt": f"delta-{run}"}),
    ]


def test_payloads_of_projects_that_want_it(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """Runs that there are, and those to come; of runs and of nodes; and of nobody else."""
    fold_events(migrated_url, [*paid("1", 1000), *paid("2", 2000), *paid("3", 3000, "others")])
    with pytest.raises(BadParameter, match="runfold search set"):
        history.runs(payload="order-1")

    enable_payload_search(database, "acme")
    page = history.runs(payload="order-1")
    assert page.runs == []
    assert searched_of(page).since is not None
    index_all(migrated_url)

    fold_events(migrated_url, [*paid("4", 4000), *paid("5", 5000)[:-1]])
    page = history.runs(payload="order-4")
    assert page.runs == []
    assert searched_of(page).behind > 0
    index_all(migrated_url)

    page = history.runs(payload="order-4")
    assert [run.id for run in page.runs] == ["4"]
    searched = searched_of(page)
    assert (searched.behind, searched.since) == (0, None)
    assert searched.up_to is not None
    for word in ("ORDER", "alpha", "beta", "delta"):
        assert ids(history, payload=f"{word}-2") == ["2"]
        assert ids(history, payload=f"{word}-") == ["4", "2", "1"]
    assert ids(history, payload="gamma-2") == []
    assert ids(history, payload="order-3") == []
    assert ids(history, payload="order-5") == []
    assert ids(history, payload='"order":"order-', project="acme", q="flow-4") == ["4"]
    with pytest.raises(BadParameter, match="others"):
        history.runs(payload="order-3", project="others")
    fold_events(migrated_url, paid("5", 5000)[-1:])
    index_all(migrated_url)
    assert ids(history, payload="order-5") == ["5"]


def test_payloads_switched_off(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """Nobody finds them any more, at once; then they are taken out; then it can be on again."""
    enable_payload_search(database, "acme")
    enable_payload_search(database, "others")
    fold_events(migrated_url, [*paid("1", 1000), *paid("3", 3000, "others")])
    index_all(migrated_url)
    assert ids(history, payload="order-") == ["3", "1"]

    assert disable_payload_search(database, "acme")
    assert not disable_payload_search(database, "acme")
    assert ids(history, payload="order-") == ["3"]
    index_all(migrated_url)
    assert count_rows(database, "search_payloads") == 1
    assert [each.project for each in read_projects(database)] == ["others"]
    enable_payload_search(database, "acme")
    index_all(migrated_url)
    assert ids(history, payload="order-") == ["3", "1"]


def test_letters_and_lengths(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """Escaped letters are letters; what lies beyond the bound is not searched."""
    enable_payload_search(database, "acme")
    fold_events(
        migrated_url,
        [
            *paid("1", 1000, city="M\u00dcNCHEN"),
            *paid("2", 2000, a="x" * MAX_PAYLOAD, z="too late"),
        ],
    )
    raw = json.dumps({"city": "Z\u00dcRICH"})
    assert "\\u" in raw
    database.execute(
        "UPDATE events SET body = replace(body, %s, %s) WHERE type = 'started' AND body LIKE %s",
        ['"M\u00dcNCHEN"', raw[9:-1], "%M\u00dcNCHEN%"],
    )
    index_all(migrated_url)
    assert ids(history, payload="z\u00fcrich") == ["1"]
    assert ids(history, payload="too late") == []
    assert ids(history, payload="xxxxxxxxxxxx") == ["2"]


def test_payloads_go_with_age(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """In the transaction that marks the run; and they are not put in again."""
    enable_payload_search(database, "acme")
    fold_events(migrated_url, paid("1", 1000))
    index_all(migrated_url)
    set_policy(database, Policy("acme", payload_days=1))
    place = database.execute("SELECT shard, run FROM search_payloads").fetchone()
    assert place is not None
    later = datetime(2030, 1, 1, tzinfo=UTC)

    assert mark(database, place[0], [place[1]], later, gone=False) == [place[1]]

    assert count_rows(database, "search_payloads") == 0
    restart_scan(database)
    index_all(migrated_url)
    assert count_rows(database, "search_payloads") == 0


def test_over_rest(
    history: History, database: psycopg.Connection, migrated_url: str, redis_url: str
) -> None:
    """Lists and exports take `payload`; what needs to know every match refuses it."""
    enable_payload_search(database, "acme")
    fold_events(migrated_url, [*paid("1", 1000), *paid("2", 2000)])
    index_all(migrated_url)
    with run_api(redis_url, migrated_url) as client:
        page = client.get("/api/v1/runs", params={"payload": "order-2"}).json()
        assert [run["id"] for run in page["runs"]] == ["2"]
        assert page["searched"]["behind"] == 0
        assert "searched" not in client.get("/api/v1/runs").json()
        params = {"payload": "order-2", "format": "ndjson"}
        lines = client.get("/api/v1/export", params=params).text.splitlines()
        assert [json.loads(line)["id"] for line in lines] == ["2"]
        refused = [
            client.get("/api/v1/live", params={"payload": "order-2"}),
            client.delete("/api/v1/runs", params={"payload": "order-2"}),
            client.get("/api/v1/runs", params={"payload": "x", "project": "other"}),
            client.get("/api/v1/export", params={**params, "project": "other"}),
        ]
    assert [(one.status_code, one.json()["parameter"]) for one in refused] == [(400, "payload")] * 4
    assert count_rows(database, "runs") == MANY + 2


def test_from_the_terminal(
    history: History, database: psycopg.Connection, migrated_url: str, state_home: None
) -> None:
    """Switched on, shown, searched and switched off; what goes wrong says what to do."""

    def runfold(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "runfold_stack.cli", *words],
            env={**os.environ, "RUNFOLD_DATABASE_URL": migrated_url, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )

    fold_events(migrated_url, paid("1", 1000))
    assert json.loads(
        runfold("search", "set", "--project", "acme", "--payloads", "on", "--json").stdout
    )["projects"][0]["wanted"]
    index_all(migrated_url)
    assert "all that is folded is in it" in runfold("search", "show").stdout
    found = json.loads(runfold("runs", "--payload", "order-1", "--json").stdout)
    assert [run["id"] for run in found["runs"]] == ["1"]

    assert (
        "being taken out"
        in runfold("search", "set", "--project", "acme", "--payloads", "off").stdout
    )
    refused = runfold("runs", "--payload", "order-1")
    assert refused.returncode == 2
    assert "runfold search set" in refused.stderr
    assert runfold("search", "set", "--project", "acme").returncode == 2
    assert runfold("search", "set", "--project", "acme", "--payloads", "off").returncode == 1
    shown = json.loads(runfold("search", "rebuild", "--json").stdout)
    assert shown["index"]["reading_shards"] == shown["index"]["shards"]


def test_the_doctor_tells_what_the_index_is_worth(
    history: History,
    database: psycopg.Connection,
    migrated_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Too far behind, or not there at all, with the remedy; which helps."""
    assert check_search(database).level == "ok"
    monkeypatch.setattr(postgres_checks, "MAX_BEHIND", 0)
    fold_events(migrated_url, paid("1", 1000))
    late = check_search(database)
    assert (late.level, late.remedy) == (
        "warn",
        "`runfold worker --role jobs` keeps it: is one at work?",
    )
    index_all(migrated_url)
    assert check_search(database).level == "ok"

    database.execute("DROP EXTENSION pg_trgm CASCADE")
    missing = check_search(database)
    assert missing.level == "warn"
    assert missing.remedy is not None
    assert missing.remedy.endswith("runfold search rebuild")
    assert ids(history, q="run-0007") == ["run-0007"]
    assert create_indexes(database)
    restart_scan(database)
    index_all(migrated_url)
    assert check_search(database).level == "ok"
    assert read_state(database).has_trigrams

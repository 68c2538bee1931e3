"""Search: texts are found in every field, however far behind the index is."""

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
from runfold_stack.doctor.postgres_checks import check_search
from runfold_storage.admin import Admin
from runfold_storage.errors import BadParameter
from runfold_storage.filters.search_text import MAX_PAYLOAD
from runfold_storage.history import History
from runfold_storage.postgres.connections import connect
from runfold_storage.queries.runs.planner import ListLimits
from runfold_storage.read_models.summaries import RunPage, Searched
from runfold_storage.retention.policies import Policy, set_policy
from runfold_storage.retention.run_expiry import mark_expired
from runfold_storage.search import indexer
from runfold_storage.search.indexer import create_indexes, read_state, restart_scan
from runfold_storage.search.projects import (
    disable_payload_search,
    enable_payload_search,
    read_projects,
)
from runfold_workers.jobs.worker import SearchIndexing
from service_threads import run_api, run_job_worker
from table_reader import count_rows

MANY = 400
"""More runs than are sampled before the index is used."""


@pytest.fixture
def history(migrated_url: str) -> Iterator[History]:
    """Fold and index many runs of workflow `common`, and read them."""
    fold_events(
        migrated_url,
        [one for n in range(MANY) for one in make_run_events(f"run-{n:04}", n, workflow="common")],
    )
    index_all(migrated_url)
    with History(migrated_url) as reads:
        yield reads


@pytest.fixture
def index_only(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make scans fail, so that results come from the index."""
    monkeypatch.setattr(history, "_list_limits", ListLimits(common_text=1))

    def scan(*_: Any) -> None:
        raise AssertionError("scanned")

    monkeypatch.setattr("runfold_storage.queries.runs.sql.end_of_scan", scan)


def ids(history: History, **filters: Any) -> list[str]:
    return [run.id for run in history.runs(**filters, limit=500).runs]


@pytest.mark.usefixtures("index_only")
def searched_of(page: RunPage) -> Searched:
    """How far the search index had come when a page was read."""
    assert isinstance(page.searched, Searched)
    return page.searched


def test_all_fields_are_indexed(history: History, migrated_url: str) -> None:
    """Id, workflow, tags in both notations, error type and message; with a total."""
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
def test_changes_since_the_last_step_are_found(history: History, migrated_url: str) -> None:
    """This includes old runs whose indexed text is outdated."""
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
def test_pages_of_indexed_results(history: History) -> None:
    """Cursors lead forwards and back, also combined with other filters."""
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


def test_scans_find_what_the_index_cannot_answer(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """Two letters, too many matches, an index too far behind or too slow: all are found."""
    fold_events(migrated_url, make_run_events("the one", -5, workflow="zq"))
    assert ids(history, q="zq") == ["the one"]
    assert len(ids(history, q="common")) == MANY
    for limits, q, expected in (
        (ListLimits(found=5), "run-003", [f"run-003{n}" for n in range(10)]),
        (ListLimits(behind=0), "the one", ["the one"]),
    ):
        with History(migrated_url, list_limits=limits) as limited:
            assert sorted(ids(limited, q=q)) == expected
    with database.transaction():
        database.execute("LOCK TABLE search_runs IN ACCESS EXCLUSIVE MODE")
        assert ids(history, q="the one") == ["the one"]


def test_without_trigrams(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """Without pg_trgm, scans find the texts, and the state says that there are no trigrams."""
    database.execute("DROP EXTENSION pg_trgm CASCADE")
    fold_events(migrated_url, make_run_events("another", -5))
    index_all(migrated_url)
    assert ids(history, q="another") == ["another"]
    assert not read_state(database).has_trigrams


def test_a_gap_in_the_feed(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """All runs are scanned, and texts without a run are deleted."""
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


def test_a_damaged_index_is_rebuilt(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """A scan corrects missing, wrong and orphaned rows, also with several followers."""
    before = database.execute("SELECT * FROM search_runs ORDER BY shard, run").fetchall()
    database.execute("DELETE FROM search_runs WHERE hashtext(run::text) %% 3 = 0", [])
    database.execute("UPDATE search_runs SET text = 'wrong' WHERE hashtext(run::text) %% 3 = 1", [])
    database.execute("INSERT INTO search_runs (shard, run, text) VALUES (1, %s, 'x')", [_KEY])

    restart_scan(database)
    more, turns = True, 0
    while more:
        with connect(migrated_url, autocommit=True) as connection:
            more = SearchIndexing(connection, page_runs=30).turn()
        turns += 1

    assert turns > 2
    assert database.execute("SELECT * FROM search_runs ORDER BY shard, run").fetchall() == before


def test_another_life_of_the_database(history: History, database: psycopg.Connection) -> None:
    """Progress beyond the fold is discarded."""
    database.execute("UPDATE search_progress SET change_seq = change_seq + 1000000")
    assert ids(history, q="run-0007") == ["run-0007"]
    indexer.follow(database)
    while indexer.follow(database).more:
        pass
    assert read_state(database).behind == 0
    assert ids(history, q="run-0007") == ["run-0007"]


def test_one_follower_at_a_time(history: History, migrated_url: str) -> None:
    """A second follower waits until the session of the first has ended."""
    fold_events(migrated_url, make_run_events("newer", -5))
    with connect(migrated_url, autocommit=True) as second:
        with connect(migrated_url, autocommit=True) as first:
            assert indexer.become_follower(first)
            assert not SearchIndexing(second).turn()
            assert read_state(second).behind > 0
        indexing = SearchIndexing(second)
        wait_until(lambda: not indexing.turn() and read_state(second).behind == 0)


def test_deleted_runs_leave_the_index(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """Their texts are deleted at once, and do not come back."""
    Admin(migrated_url).delete_runs(q="run-003")
    assert count_rows(database, "search_runs") == MANY - 10
    index_all(migrated_url)
    assert count_rows(database, "search_runs") == MANY - 10
    assert ids(history, q="run-003") == []


def test_a_job_worker_follows(
    history: History, database: psycopg.Connection, migrated_url: str, redis_url: str
) -> None:
    """It indexes runs shortly after they are folded."""
    with run_job_worker(redis_url, migrated_url):
        fold_events(migrated_url, make_run_events("newest", 900))
        wait_until(lambda: count_rows(database, "search_runs") == MANY + 1)


_KEY = "00000000-0000-7000-8000-000000000001"


def paid(run: str, second: float, project: str = "acme", **inputs: Any) -> list[dict[str, Any]]:
    """Return the events of a run with inputs and outputs of its own and of a node."""
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


def test_payloads_of_enabled_projects(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """Existing and later payloads of runs and nodes are found, and none of other projects."""
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


def test_disabling_payload_search(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """Payloads are not found any more; their texts are deleted; it can be enabled again."""
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
    """Escaped letters match; text beyond the limit is not searched."""
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


def test_expired_payloads_leave_the_index(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """The transaction that marks the run deletes them, and they are not indexed again."""
    enable_payload_search(database, "acme")
    fold_events(migrated_url, paid("1", 1000))
    index_all(migrated_url)
    set_policy(database, Policy("acme", payload_days=1))
    place = database.execute("SELECT shard, run FROM search_payloads").fetchone()
    assert place is not None
    later = datetime(2030, 1, 1, tzinfo=UTC)

    assert mark_expired(database, place[0], [place[1]], later, gone=False) == [place[1]]

    assert count_rows(database, "search_payloads") == 0
    restart_scan(database)
    index_all(migrated_url)
    assert count_rows(database, "search_payloads") == 0


def test_over_rest(
    history: History, database: psycopg.Connection, migrated_url: str, redis_url: str
) -> None:
    """Lists and exports accept `payload`; deletions and live streams refuse it."""
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
    """Payload search is enabled, shown, used and disabled; errors name the remedy."""

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
    assert "index: up to date" in runfold("search", "show").stdout
    found = json.loads(runfold("runs", "--payload", "order-1", "--json").stdout)
    assert [run["id"] for run in found["runs"]] == ["1"]

    assert (
        "being removed" in runfold("search", "set", "--project", "acme", "--payloads", "off").stdout
    )
    refused = runfold("runs", "--payload", "order-1")
    assert refused.returncode == 2
    assert "runfold search set" in refused.stderr
    assert runfold("search", "set", "--project", "acme").returncode == 2
    assert runfold("search", "set", "--project", "acme", "--payloads", "off").returncode == 1
    shown = json.loads(runfold("search", "rebuild", "--json").stdout)
    assert shown["index"]["reading_shards"] == shown["index"]["shards"]


def test_the_doctor_checks_the_index(
    history: History,
    database: psycopg.Connection,
    migrated_url: str,
) -> None:
    """It reports an index that is far behind or missing, with a remedy that works."""
    assert check_search(database).level == "ok"
    fold_events(migrated_url, paid("1", 1000))
    late = check_search(database, max_behind=0)
    assert (late.level, late.remedy) == (
        "warn",
        "check that a `runfold worker --role jobs` runs",
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
